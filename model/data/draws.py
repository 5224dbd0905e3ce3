"""The random draws of a training sample, a function of (seed, sample, epoch).

The generator is seeded with the sample's name, so that a sample gets the same noise, timestep and text dropout in any
batch, on any worker, in any number of processes, before and after a restart.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from model.flow import sample_timesteps, shift_timesteps


class Draw(NamedTuple):
    """Random values of one sample."""

    timestep: Tensor  # () in (0, 1000), shifted
    text_dropped: bool
    noise: dict[str, Tensor]  # modality -> latent shape


def draw(
    seed: int,
    sample_id: str,
    epoch: int,
    shapes: Mapping[str, Sequence[int]],
    size: tuple[int, int, int],
    text_dropout: float,
    shift_scale: float,
) -> Draw:
    """Return the draws of a sample in an epoch.

    Args:
        shapes: modality -> latent shape; noise is drawn in this order.
        size: height and width in pixels and number of frames, which decide the shift.
        text_dropout: chance that the caption is replaced by the negative prompt.
        shift_scale: of `shift_timesteps`.
    """
    generator = torch.Generator().manual_seed(sample_seed(seed, sample_id, epoch))
    timestep = shift_timesteps(sample_timesteps(1, generator), *size, shift_scale)[0]
    text_dropped = bool(torch.rand((), generator=generator) < text_dropout)
    noise = {name: torch.randn(tuple(shape), generator=generator) for name, shape in shapes.items()}
    return Draw(timestep, text_dropped, noise)


def sample_seed(seed: int, sample_id: str, epoch: int) -> int:
    """Return the 63-bit seed of a sample's draws in an epoch."""
    digest = hashlib.blake2b(json.dumps([seed, sample_id, epoch]).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def stack_texts(texts: Sequence[Tensor], text_len: int) -> tuple[Tensor, Tensor]:
    """Stack unpadded embeddings (length, D) to (B, text_len, D), zero where padded, with the mask (B, text_len)."""
    stacked = torch.zeros(len(texts), text_len, texts[0].shape[1])
    mask = torch.zeros(len(texts), text_len, dtype=torch.bool)
    for row, text in enumerate(texts):
        stacked[row, : len(text)] = text
        mask[row, : len(text)] = True
    return stacked, mask
