"""The verdict of held-out judges on two models: one number from all metrics that no training used."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from evaluation.compare.tables import PairedScores
from evaluation.statistics.bootstrap import bootstrap_interval
from evaluation.statistics.training_marks import mark


@dataclass(frozen=True)
class HeldOutDifference:
    """Mean standardised difference, candidate - baseline, over the judges; positive if the candidate is better.

    Attributes:
        judges: metrics that were averaged.
        are_held_out: false if a training used every metric, so that all of them were averaged.
        low, high: paired bootstrap 95 % interval over prompts; NaN with fewer than two prompts.
    """

    judges: tuple[str, ...]
    are_held_out: bool
    difference: float
    low: float
    high: float


def held_out_difference(pairs: PairedScores, *, num_bootstrap: int, seed: int) -> HeldOutDifference:
    """Average the standardised differences of the metrics that no training of either model used.

    Each metric is divided by its standard deviation over the samples of both models, and turned so that higher is
    better. A sample counts if at least one metric is defined for both models.

    Raises:
        ValueError: if no metric has a score for both models.
    """
    origins = pairs.origins
    defined = [name for name in origins if (pairs.baseline[name] * pairs.candidate[name]).notna().any()]
    if not defined:
        raise ValueError(f"{' and '.join(pairs.names)} have no metric with scores of both: score them with one reward.")
    held_out = [name for name in defined if mark(name, origins[name].reward, pairs.lineages).kind == "held_out"]
    judges = held_out or defined
    values = standardised_differences(pairs, judges).mean(axis=1).to_numpy()[:, None]  # (N, 1)
    _, prompts = np.unique(pairs.prompt_ids, return_inverse=True)
    low, high = bootstrap_interval(values, prompts, num_bootstrap=num_bootstrap, seed=seed)
    return HeldOutDifference(tuple(judges), bool(held_out), float(np.nanmean(values)), float(low[0]), float(high[0]))


def standardised_differences(pairs: PairedScores, metrics: list[str]) -> pd.DataFrame:
    """Return (N, K) differences in standard deviations, positive where the candidate is better."""
    deviation = pd.concat([pairs.baseline[metrics], pairs.candidate[metrics]]).std(ddof=1)
    signs = pd.Series({name: 1.0 if pairs.higher_is_better[name] else -1.0 for name in metrics})
    return (pairs.candidate[metrics] - pairs.baseline[metrics]) / deviation.where(deviation > 0, 1.0) * signs
