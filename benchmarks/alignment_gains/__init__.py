"""`python -m benchmarks.alignment_gains`: what each way of alignment gains on Bounce, at equal data and steps."""
