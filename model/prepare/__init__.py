"""`python -m model.prepare`: encode clips once into a dataset of latents and text embeddings."""
