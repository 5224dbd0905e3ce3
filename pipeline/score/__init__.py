"""`python -m pipeline.score`: rewards of every candidate."""
