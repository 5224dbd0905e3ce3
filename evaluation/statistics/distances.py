"""Distances between two sets of features: the Frechet distance (FVD, FAD) and the kernel distance (KVD).

Source: docs/upstream/metrics.md, sections 1 and 2.
Both protocols compute in float64; lower is better.
The protocol "javisbench" cuts both sets to the length of the shorter one, as the release does, and keeps its defects.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import numpy as np

from rewards.base import Protocol

KERNEL_DEGREE = 3
UNROOTED_BELOW = 1e-10  # the release's matrix root leaves smaller singular values unchanged
_BLOCK_ROWS = 1024  # rows and columns of a block of the kernel matrix: 8 MiB of float64
_NUM_ROWS_SHOWN = 3


def frechet_distance(real: np.ndarray, generated: np.ndarray, protocol: Protocol = "correct") -> float:
    """Return the Frechet distance of the Gaussians with the means and unbiased covariances of the two sets.

    |m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1^1/2 S2 S1^1/2)^1/2), for sets of any length, also shorter than D. The
    last trace is computed as the sum of the singular values of A1 A2', where Si = Ai' Ai and Ai is the centred set
    divided by sqrt(N - 1); this avoids squaring and the root of a singular matrix.

    Args:
        real: (N, D), any real dtype; all rows are used.
        generated: (M, D); M may differ from N.
        protocol: "javisbench" cuts both sets to the length of the shorter one, keeping the first rows, and uses the
            release's matrix roots, which leave singular values below 1e-10 unrooted: in directions of little variance,
            as in features of a small scale, the sets then count as unrelated.

    Returns:
        The distance, at least 0 except for rounding and, under "javisbench", unrooted values above 1.

    Raises:
        ValueError: if the sets differ in width, have fewer than two rows, or contain values that are not finite.
    """
    real, generated = _checked(real, generated, protocol)
    shift = real.mean(axis=0) - generated.mean(axis=0)
    scaled = [_centred(rows) / np.sqrt(len(rows) - 1) for rows in (real, generated)]
    spread = sum(float(np.square(rows).sum()) for rows in scaled)
    overlap = _trace_of_root(*scaled) if protocol == "correct" else _released_trace_of_root(*scaled)
    return float(shift @ shift) + spread - 2 * overlap


def kernel_distance(real: np.ndarray, generated: np.ndarray, protocol: Protocol = "correct") -> float:
    """Return the unbiased squared maximum mean discrepancy with the kernel (x.y / D + 1)^3 over all rows.

    The estimate is unbiased, so for two sets from the same distribution it varies around 0 and may be negative. There
    is no scaling and there are no subsets. Memory grows with N + M, not with N * M.

    Args:
        real: (N, D), any real dtype; all rows are used.
        generated: (M, D); M may differ from N.
        protocol: "javisbench" cuts both sets to the length of the shorter one, keeping the first rows, and centres
            each set on its own mean, as the release does by mistake: this distance ignores a shift of the mean.

    Raises:
        ValueError: if the sets differ in width, have fewer than two rows, or contain values that are not finite.
    """
    real, generated = _checked(real, generated, protocol)
    if protocol == "javisbench":
        real, generated = _centred(real), _centred(generated)
    return _mean_within(real) + _mean_within(generated) - 2 * _mean_across(real, generated)


def _checked(real: np.ndarray, generated: np.ndarray, protocol: Protocol) -> tuple[np.ndarray, np.ndarray]:
    """Check both sets and return them as float64, cut to equal length under "javisbench"."""
    if protocol not in get_args(Protocol):
        raise ValueError(f"protocol is {protocol!r}: choose one of {', '.join(get_args(Protocol))}.")
    sets = {name: np.asarray(rows) for name, rows in (("real", real), ("generated", generated))}
    for name, rows in sets.items():
        if rows.ndim != 2:
            raise ValueError(f"The {name} features have shape {rows.shape}: give one row per clip, (N, D).")
    if real.shape[1] != generated.shape[1]:
        raise ValueError(
            f"Real features have {real.shape[1]} columns and generated ones {generated.shape[1]}, so they come from "
            "different networks: extract both with the same one."
        )
    for name, rows in sets.items():
        _check_rows(name, rows)
    length = min(map(len, sets.values())) if protocol == "javisbench" else None
    return sets["real"][:length].astype(np.float64), sets["generated"][:length].astype(np.float64)


def _check_rows(name: str, rows: np.ndarray) -> None:
    if len(rows) < 2:
        raise ValueError(f"There are {len(rows)} rows of {name} features: a covariance needs at least 2 clips.")
    broken = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(broken):
        shown = ", ".join(map(str, broken[:_NUM_ROWS_SHOWN])) + (", ..." if len(broken) > _NUM_ROWS_SHOWN else "")
        raise ValueError(
            f"{len(broken)} of {len(rows)} rows of {name} features are not finite (row {shown}, counted from 0): "
            "extract the features of these clips again, or leave the clips out."
        )


def _centred(rows: np.ndarray) -> np.ndarray:
    return rows - rows.mean(axis=0)


def _trace_of_root(first: np.ndarray, second: np.ndarray) -> float:
    """Return tr((S1^1/2 S2 S1^1/2)^1/2) for Si = Ai' Ai as the nuclear norm of A1 A2'; Ai is (N, D)."""
    # Replacing a tall A by its (D, D) triangular factor does not change the singular values of the product.
    first, second = (
        np.asarray(np.linalg.qr(rows, mode="r")) if len(rows) > rows.shape[1] else rows for rows in (first, second)
    )
    return float(np.linalg.svd(first @ second.T, compute_uv=False).sum())


def _released_trace_of_root(first: np.ndarray, second: np.ndarray) -> float:
    """Return the same trace, computed with the release's two matrix roots."""
    root = _released_root(first.T @ first)
    return float(np.trace(_released_root(root @ (second.T @ second) @ root)))


def _released_root(matrix: np.ndarray) -> np.ndarray:
    left, values, right = np.linalg.svd(matrix, hermitian=True)
    return (left * np.where(values < UNROOTED_BELOW, values, np.sqrt(values))) @ right


def _mean_within(rows: np.ndarray) -> float:
    """Return the mean of the kernel over all pairs of different rows."""
    total = 0.0
    starts = range(0, len(rows), _BLOCK_ROWS)
    for start in starts:
        block = rows[start : start + _BLOCK_ROWS]
        diagonal = _kernel(block, block)
        np.fill_diagonal(diagonal, 0.0)
        # The kernel is symmetric: the blocks right of the diagonal occur below it, too.
        total += diagonal.sum() + 2 * sum(_kernel(block, other).sum() for other in _blocks(rows[start + len(block) :]))
    return float(total) / (len(rows) * (len(rows) - 1))


def _mean_across(first: np.ndarray, second: np.ndarray) -> float:
    total = sum(_kernel(block, other).sum() for block in _blocks(first) for other in _blocks(second))
    return float(total) / (len(first) * len(second))


def _blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
    return (rows[start : start + _BLOCK_ROWS] for start in range(0, len(rows), _BLOCK_ROWS))


def _kernel(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the kernel (x.y / D + 1)^3 for all pairs of rows: (N, D) and (M, D) -> (N, M)."""
    base = first @ second.T
    base /= first.shape[1]
    base += 1.0
    cube = np.square(base)  # KERNEL_DEGREE written out: numpy's power is many times slower
    cube *= base
    return cube
