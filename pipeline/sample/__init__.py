"""`python -m pipeline.sample`: candidates for every prompt."""
