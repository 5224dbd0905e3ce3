"""Fault-tolerant work on Ray: the worker pool, the journal of finished rows, the lock on a stage's folder."""
