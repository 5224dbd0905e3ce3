"""`python -m model.train`: training stages 1 and 2."""
