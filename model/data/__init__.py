"""Training data: tables and folders of clips, buckets, windows, batches and prepared latents."""
