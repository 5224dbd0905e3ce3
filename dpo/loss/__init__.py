"""The preference loss per modality, its objectives and its reference model."""
