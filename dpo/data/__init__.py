"""Preference pairs: the pairs table, the training dataset and its checks."""
