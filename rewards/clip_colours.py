"""Colour normalisation of CLIP, which the vision towers of ImageBind and Qwen2-VL use too."""

from __future__ import annotations

from torch import Tensor

MEAN = (0.48145466, 0.4578275, 0.40821073)  # of red, green and blue in [0, 1]
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def normalise(pictures: Tensor) -> Tensor:
    """Float32 (..., 3, H, W) in [0, 1] -> about zero mean and unit variance per colour."""
    mean, deviation = (pictures.new_tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    return (pictures - mean) / deviation
