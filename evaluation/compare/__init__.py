"""`python -m evaluation.compare`: paired comparison of models on the same prompts."""
