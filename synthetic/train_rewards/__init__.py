"""`python -m synthetic.train_rewards`: train the tiny rewards from random weights."""
