"""`python -m evaluation.compare`: models compared on the same prompts."""
