"""`python -m evaluation.run`: metrics of one model's samples."""
