"""`python -m pipeline.rounds`: rounds of sampling, ranking and preference training."""
