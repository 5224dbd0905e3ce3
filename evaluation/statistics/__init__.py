"""Bootstrap intervals, significance tests, distances between distributions, and training marks of metrics."""
