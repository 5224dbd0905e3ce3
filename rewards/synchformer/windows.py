"""Windows of segments, and the DeSync score from their logits (docs/upstream/synchformer.md, section 7)."""

from __future__ import annotations

import torch
from torch import Tensor


def offset_grid(num_offsets: int, max_offset_s: float) -> Tensor:
    """The offsets that the classes stand for, float32 (num_offsets,) in seconds; > 0 means that the sound is early."""
    # Not torch.linspace: with some of its kernels the middle of the grid is 3e-8 rather than 0.
    return torch.tensor([2 * index * max_offset_s / (num_offsets - 1) - max_offset_s for index in range(num_offsets)])


def window_indices(num_segments: int, window: int) -> Tensor:
    """Return the segments of each window, int64 (W, window) with W = ceil(num_segments / window).

    Fewer segments than a window takes are repeated from the start. More are cut in windows one after the other, and
    where the last one would be incomplete, it is moved back to end with the last segment.
    """
    if num_segments < window:
        return torch.arange(window)[None] % num_segments
    starts = torch.arange(0, num_segments, window).clamp(max=num_segments - window)
    return starts[:, None] + torch.arange(window)


def desync(logits: Tensor, grid: Tensor) -> Tensor:
    """Mean over the windows of the absolute most likely offset.

    Args:
        logits: (..., W, num_offsets).
        grid: float32 (num_offsets,), seconds.

    Returns:
        float32 (...), seconds.
    """
    return _window_offsets(logits, grid).mean(dim=-1)


def desync_as_released(logits: Tensor, grid: Tensor) -> Tensor:
    """Return the release's scores for the clips of one batch, (B, W, num_offsets) -> (B,).

    It collects the values window by window but averages them as if collected clip by clip, so with several clips and
    several windows each score is a mean over windows of different clips. Equal to `desync` for one window.
    """
    by_window = _window_offsets(logits, grid).T  # (W, B)
    return by_window.reshape(logits.shape[:2]).mean(dim=-1)


def _window_offsets(logits: Tensor, grid: Tensor) -> Tensor:
    return grid.abs()[logits.argmax(dim=-1)]  # (..., W)
