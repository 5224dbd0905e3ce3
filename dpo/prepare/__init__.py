"""`python -m dpo.prepare`: encode preference pairs once into a training dataset."""
