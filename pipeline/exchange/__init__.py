"""Pairs in other formats: the release's CSV files, TRL's preference format, human labels, and dataset cards."""
