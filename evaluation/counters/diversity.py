"""Diversity within a prompt: distances between the features of its samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def mean_distances(features: Sequence[np.ndarray | None], groups: np.ndarray) -> np.ndarray:
    """Return each sample's mean distance to the other samples of its group, (N,) float64.

    The mean of it over a group is the group's mean pairwise distance. A distance is the root mean square of the
    differences. NaN for a sample without features, or without another sample that has some.

    Args:
        features: N arrays of one shape, or None.
        groups: (N,) integers, the prompt of each sample.
    """
    result = np.full(len(features), np.nan)
    members: dict[int, dict[int, np.ndarray]] = {}  # group -> place -> features
    for place, (one, group) in enumerate(zip(features, groups.tolist(), strict=True)):
        if one is not None:
            members.setdefault(group, {})[place] = one.ravel().astype(np.float64)
    for known in members.values():
        if len(known) < 2:
            continue
        places, rows = list(known), np.stack(list(known.values()))
        distances = np.sqrt(np.stack([np.square(rows - row).mean(axis=1) for row in rows]))  # (K, K)
        result[places] = distances.sum(axis=1) / (len(places) - 1)
    return result
