"""Video and audio codecs: clips to latents and back."""
