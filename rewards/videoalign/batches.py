"""Clips and chats of different lengths, put together for one forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """One clip in its chat."""

    input_ids: Sequence[int]
    patches: Tensor  # float32 (patches, patch_dim)
    grid: tuple[int, int, int]  # patches in time, height and width


@dataclass(frozen=True)
class Batch:
    """Input of `VideoAlignNetwork`, on the device of the patches."""

    input_ids: Tensor  # (B, L), padded on the right
    patches: Tensor  # (patches of all clips, patch_dim)
    grids: Tensor  # (B, 3)


def collate(samples: Sequence[Sample], pad: int) -> Batch:
    length = max(len(sample.input_ids) for sample in samples)
    rows = [[*sample.input_ids, *[pad] * (length - len(sample.input_ids))] for sample in samples]
    patches = torch.cat([sample.patches for sample in samples])
    grids = torch.tensor([sample.grid for sample in samples], device=patches.device)
    return Batch(torch.tensor(rows, device=patches.device), patches, grids)


def group_by_length(lengths: Sequence[int], tokens_at_once: int) -> Iterator[list[int]]:
    """Indices of rows of similar length, each group of at most `tokens_at_once` with its padding, or of one row."""
    group: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):  # ascending: the newest is the padded length
        if group and (len(group) + 1) * lengths[index] > tokens_at_once:
            yield group
            group = []
        group.append(index)
    if group:
        yield group
