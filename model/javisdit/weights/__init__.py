"""Checkpoint files: their locations, tensor names, reading and writing."""
