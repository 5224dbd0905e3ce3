"""The JavisDiT++ generator: network, codecs, checkpoint files, text encoder and generation pipeline."""
