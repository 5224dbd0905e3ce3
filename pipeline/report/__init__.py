"""`python -m pipeline.report`: an HTML page that shows the pairs and plays their clips."""
