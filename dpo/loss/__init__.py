"""The preference loss with one term per modality, its loss functions and the reference model."""
