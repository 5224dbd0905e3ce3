"""Bootstrap intervals, significance tests and distances between distributions."""
