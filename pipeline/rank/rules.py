"""What makes a pair, beyond the strategy: margins, gates for the winner, how many pairs a prompt may give."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rewards.metrics import MODALITY_METRICS

MODALITIES = tuple(MODALITY_METRICS)

_GATE = re.compile(r"\s*(\w+)\s*(>=|<=)\s*(\S+)\s*")


@dataclass(frozen=True, kw_only=True)
class PairRules:
    """Demands on a pair. The defaults are the published rule: strictly better in every modality, nothing more.

    Margins, and gates on modality scores, are in the units of the strategy: standard deviations (averaged over the
    metrics of a modality), or places in the table for modality_macro.
    """

    min_margin: float = field(
        default=0.0,
        metadata={"help": "Least margin of winner over loser, summed over modalities; it is above 0 always."},
    )
    min_modality_margins: dict[str, float | None] = field(
        default_factory=dict,
        metadata={
            "help": "Least margin per modality, as '{audio: 0.2, audio_video: -0.1}'. Without one the winner must be "
            "strictly better; a negative one lets it be worse by so much; null leaves the modality out of the rule "
            "(it still counts in the sum)."
        },
    )
    winner_gates: list[str] = field(
        default_factory=list,
        metadata={
            "help": "What every winner must reach, as 'audio_quality >= 5' 'desync <= 0.4' 'audio_score >= 0': a "
            "column of numbers or a modality score. A candidate that does not may still lose."
        },
    )
    pairs_per_prompt: int = field(
        default=1, metadata={"help": "How many pairs a prompt may give: those with the largest margins, all distinct."}
    )

    def __post_init__(self) -> None:
        """Raises ValueError where a value makes no sense."""
        if not (math.isfinite(self.min_margin) and self.min_margin >= 0):
            raise ValueError(f"min_margin is {self.min_margin}, but must be a number from 0 on.")
        for modality, margin in self.min_modality_margins.items():
            if modality not in MODALITIES:
                raise ValueError(
                    f"min_modality_margins names {modality!r}, but must name some of {', '.join(MODALITIES)}."
                )
            if margin is not None and (isinstance(margin, bool) or not _is_finite_number(margin)):
                raise ValueError(
                    f"min_modality_margins gives {modality} {margin!r}, but must give a number, or null to leave the "
                    "modality out."
                )
        if self.pairs_per_prompt < 1:
            raise ValueError(f"pairs_per_prompt is {self.pairs_per_prompt}, but must be at least 1.")
        for text in self.winner_gates:
            parse_gate(text)

    def to_dict(self) -> dict[str, Any]:
        """The demands alone, without what a subclass adds."""
        return {name: getattr(self, name) for name in PairRules.__dataclass_fields__}


@dataclass(frozen=True)
class Gate:
    """`column >= threshold`, or `<=`."""

    column: str
    at_least: bool
    threshold: float

    def passes(self, values: np.ndarray) -> np.ndarray:
        """Which values (N,) reach it; a missing one (NaN) does not."""
        return values >= self.threshold if self.at_least else values <= self.threshold


def parse_gate(text: str) -> Gate:
    """`audio_quality >= 5` as a Gate. ValueError where it is written otherwise."""
    match = _GATE.fullmatch(text)
    try:
        threshold = float(match.group(3)) if match else math.nan
    except ValueError:
        threshold = math.nan
    if match is None or not math.isfinite(threshold):
        raise ValueError(
            f"winner_gates has {text!r}, but a gate is a column, >= or <=, and a number. "
            "Write it as 'audio_quality >= 5' or 'desync <= 0.4'."
        )
    return Gate(match.group(1), match.group(2) == ">=", threshold)


@dataclass(frozen=True, eq=False)
class Demand:
    """What one comparison asks of the margins of a winner, per modality compared (M,)."""

    strict: np.ndarray  # (M,) the margin is above 0
    minimum: np.ndarray  # (M,) the margin is at least this; -inf where nothing is asked
    min_total: float

    @staticmethod
    def of(rules: PairRules, strategy: str) -> Demand:
        """For all modalities together. Only the modality strategies ask for a strictly better winner in each."""
        margins: Mapping[str, float | None] = rules.min_modality_margins
        minimum = np.array([-np.inf if margins.get(name) is None else margins[name] for name in MODALITIES], float)
        asked = np.array([name not in margins or minimum[k] > 0 for k, name in enumerate(MODALITIES)])
        return Demand(asked & (strategy != "agnostic"), minimum, rules.min_margin)


def check_rules(rules: PairRules, strategy: str, has_statistics: bool) -> None:
    """ValueError where the strategy cannot have these demands, or no statistics of another table."""
    if strategy == "inconsistent" and (rules.min_margin or rules.min_modality_margins):
        raise ValueError(
            "strategy inconsistent takes picture and sound from different pairs, so a least margin of the whole has no "
            "meaning. Leave out min_margin and min_modality_margins, or take another strategy."
        )
    if strategy == "modality_macro" and has_statistics:
        raise ValueError(
            "strategy modality_macro compares ranks within one table, and statistics of another cannot change those. "
            "Leave out statistics, or rank by modality_micro."
        )


def _is_finite_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
