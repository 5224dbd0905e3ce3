"""Checkpoint files: where they lie, what their tensors are called, how they are read and written."""
