"""`python -m pipeline.rank`: pairs of winner and loser from scored candidates."""
