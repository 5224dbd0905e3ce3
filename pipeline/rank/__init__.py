"""`python -m pipeline.rank`: scored candidates into pairs of winner and loser."""
