"""`python -m model.fetch`: download published weights."""
