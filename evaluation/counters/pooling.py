"""Means over equal parts of an axis, for features of one size from clips of any size."""

from __future__ import annotations

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=64)
def averaging(length: int, size: int) -> np.ndarray:
    """Return the matrix (size, length) whose product with an axis gives the means over `size` parts of it.

    The parts are equally long up to one element. An axis shorter than `size` has some of its elements repeated.
    """
    starts = np.arange(size) * length // size
    ends = np.maximum(np.append(starts[1:], length), starts + 1)
    places = np.arange(length)
    inside = (places >= starts[:, None]) & (places < ends[:, None])
    return (inside / (ends - starts)[:, None]).astype(np.float32)


def pooled_pictures(planes: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Return pictures (..., H, W) reduced to (..., rows, columns) by means."""
    height, width = planes.shape[-2:]
    return averaging(height, rows) @ planes @ averaging(width, columns).T
