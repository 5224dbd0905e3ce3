"""The data half of the loop: sampling, scoring, ranking and the report, each a stage that reads and writes tables."""
