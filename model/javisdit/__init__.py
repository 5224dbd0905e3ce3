"""JavisDiT++: its network, codecs, weights, text encoder and generation pipeline."""
