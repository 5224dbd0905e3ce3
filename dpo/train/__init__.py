"""`python -m dpo.train`: preference training."""
