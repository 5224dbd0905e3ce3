"""Preference data: tables of pairs and groups, the training datasets and their checks."""
