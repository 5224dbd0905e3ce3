"""`python -m pipeline.inspect`: a table's schema, counts and histograms in the terminal."""
