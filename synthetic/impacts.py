"""Matching of impacts seen and impacts heard, and measures of their agreement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

UNMATCHED_S = 2.0  # desync without matches: the largest offset that Synchformer distinguishes
TOLERANCE_S = 0.25  # a match with this offset counts 1 / e
ORDER_WEIGHT = 0.2  # share of the agreement that depends on the order of loudness


def match_impacts(seen: Sequence[float], heard: Sequence[float]) -> list[tuple[int, int]]:
    """Pair each impact of the shorter list with one of the longer, in order of time, with the least total offset.

    Args:
        seen: (S,) times in seconds, ascending.
        heard: (H,) times in seconds, ascending.

    Returns:
        min(S, H) pairs of indices into `seen` and `heard`.
    """
    if len(seen) > len(heard):
        return [(first, second) for second, first in match_impacts(heard, seen)]
    offsets = np.abs(np.subtract.outer(np.asarray(seen, dtype=float), np.asarray(heard, dtype=float)))  # (S, H)
    # cost[i, j]: least total offset of the first i of seen, each paired with one of the first j of heard.
    cost = np.full((len(seen) + 1, len(heard) + 1), np.inf)
    cost[0] = 0.0
    for i in range(1, len(seen) + 1):
        for j in range(i, len(heard) + 1):
            cost[i, j] = min(cost[i, j - 1], cost[i - 1, j - 1] + offsets[i - 1, j - 1])
    pairs, j = [], len(heard)
    for i in range(len(seen), 0, -1):
        while cost[i, j] == cost[i, j - 1]:
            j -= 1
        j -= 1
        pairs.append((i - 1, j))
    return pairs[::-1]


def desync(seen: Sequence[float], heard: Sequence[float]) -> float:
    """Return the mean absolute offset of the matched impacts in seconds, in [0, 2]; 2.0 if nothing matches."""
    pairs = match_impacts(seen, heard)
    if not pairs:
        return UNMATCHED_S
    return min(float(np.mean([abs(seen[i] - heard[j]) for i, j in pairs])), UNMATCHED_S)


def impact_agreement(
    seen: Sequence[float], speeds: Sequence[float], heard: Sequence[float], levels: Sequence[float]
) -> float:
    """Return the F-score of the matched impacts, in [0, 1]; 0 if either list is empty.

    Each match counts exp(-offset / 0.25 s). A wrong order of loudness reduces the score by up to a fifth.

    Args:
        seen: (S,) times in seconds, ascending.
        speeds: (S,) downward speed at each impact seen, in any unit.
        heard: (H,) times in seconds, ascending.
        levels: (H,) loudness of each impact heard, in any unit.
    """
    pairs = match_impacts(seen, heard)
    if not pairs:
        return 0.0
    worth = sum(float(np.exp(-abs(seen[i] - heard[j]) / TOLERANCE_S)) for i, j in pairs)
    order = _same_order([speeds[i] for i, _ in pairs], [levels[j] for _, j in pairs])
    return 2 * worth / (len(seen) + len(heard)) * (1 - ORDER_WEIGHT + ORDER_WEIGHT * order)


def _same_order(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the correlation of two sequences mapped to [0, 1]; 1 if there is nothing to order."""
    deviations = np.std(first), np.std(second)
    if len(first) < 2 or min(deviations) < 1e-9:
        return 1.0
    return float(1 + np.corrcoef(first, second)[0, 1]) / 2
