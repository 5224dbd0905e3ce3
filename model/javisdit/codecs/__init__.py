"""Video and audio codecs, which convert clips to latents and back."""
