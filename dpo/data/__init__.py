"""Preference pairs: the pairs table, the prepared dataset and its checks."""
