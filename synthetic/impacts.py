"""How far impacts that are seen and impacts that are heard belong together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

UNMATCHED_S = 2.0  # desync where nothing matches: the edge of the range that Synchformer tells apart
TOLERANCE_S = 0.25  # an offset that makes a match worth 1 / e
ORDER_WEIGHT = 0.2  # share of the agreement that the order of loudness decides


def match_impacts(seen: Sequence[float], heard: Sequence[float]) -> list[tuple[int, int]]:
    """Pair as many impacts as the shorter list has, in order of time, with the least total offset.

    Args:
        seen: (S,) times in seconds, ascending.
        heard: (H,) times in seconds, ascending.

    Returns:
        min(S, H) pairs of indices into `seen` and `heard`.
    """
    if len(seen) > len(heard):
        return [(first, second) for second, first in match_impacts(heard, seen)]
    offsets = np.abs(np.subtract.outer(np.asarray(seen, dtype=float), np.asarray(heard, dtype=float)))  # (S, H)
    # cost[i, j]: the first i of seen, each paired with one of the first j of heard.
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
    """Mean absolute offset of the matched impacts in seconds, in [0, 2]; 2.0 when nothing matches."""
    pairs = match_impacts(seen, heard)
    if not pairs:
        return UNMATCHED_S
    return min(float(np.mean([abs(seen[i] - heard[j]) for i, j in pairs])), UNMATCHED_S)


def impact_agreement(
    seen: Sequence[float], speeds: Sequence[float], heard: Sequence[float], levels: Sequence[float]
) -> float:
    """F-score of the matched impacts, each worth exp(-offset / 0.25 s); a wrong order of loudness costs up to a fifth.

    Args:
        seen: (S,) times in seconds, ascending; speeds: (S,) downward speed at each, in any unit.
        heard: (H,) times in seconds, ascending; levels: (H,) loudness of each, in any unit.

    Returns:
        A number in [0, 1]; 0 when either list is empty.
    """
    pairs = match_impacts(seen, heard)
    if not pairs:
        return 0.0
    worth = sum(float(np.exp(-abs(seen[i] - heard[j]) / TOLERANCE_S)) for i, j in pairs)
    order = _same_order([speeds[i] for i, _ in pairs], [levels[j] for _, j in pairs])
    return 2 * worth / (len(seen) + len(heard)) * (1 - ORDER_WEIGHT + ORDER_WEIGHT * order)


def _same_order(first: Sequence[float], second: Sequence[float]) -> float:
    """Correlation mapped to [0, 1]; 1 where there is nothing to order."""
    deviations = np.std(first), np.std(second)
    if len(first) < 2 or min(deviations) < 1e-9:
        return 1.0
    return float(1 + np.corrcoef(first, second)[0, 1]) / 2
