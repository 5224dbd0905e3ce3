"""Views of one item, which the front ends give to the network and whose embeddings are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor


class Views(NamedTuple):
    """Views of one item; a view that the published rule repeats is stored once, with more weight."""

    inputs: Tensor  # (S, ...)
    weights: Tensor  # float32 (S,), sum 1

    @classmethod
    def counted(cls, inputs: Tensor, counts: Sequence[int]) -> Self:
        weights = torch.tensor(counts, dtype=torch.float32, device=inputs.device)
        return cls(inputs, weights / weights.sum())
