"""Other forms of the pairs: the release's CSV files, TRL's view, labels of people, dataset cards."""
