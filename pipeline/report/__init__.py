"""`python -m pipeline.report`: a page of the pairs with players."""
