"""Work that survives on Ray: the worker pool, the journal of finished rows, the lock of a stage's folder."""
