"""`python -m dpo.construct`: make preference pairs from good clips, with losers that are made by rule."""
