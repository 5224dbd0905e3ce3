"""`python -m synthetic.bootstrap`: train the tiny preset from random weights."""
