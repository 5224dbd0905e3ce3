"""Conditions on pairs beyond the strategy: minimum margins, gates for the winner, and pairs per prompt."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from rewards.metrics import MODALITY_METRICS

MODALITIES = tuple(MODALITY_METRICS)

Strategy = Literal["modality_micro", "modality_macro", "agnostic", "inconsistent"]
GroundTruthPolicy = Literal["never", "winner_only", "any"]

_GATE = re.compile(r"\s*(\w+)\s*(>=|<=)\s*(\S+)\s*")


@dataclass(frozen=True, kw_only=True)
class PairRules:
    """Conditions on a pair. The defaults are the published rule: the winner is strictly better in every modality.

    Margins, and gates on modality scores, are in the units of the strategy: standard deviations (averaged over the
    metrics of a modality), or ranks in the table for modality_macro.
    """

    min_margin: float = field(
        default=0.0,
        metadata={"help": "Minimum margin of winner over loser, summed over modalities. The margin is always above 0."},
    )
    min_modality_margins: dict[str, float | None] = field(
        default_factory=dict,
        metadata={
            "help": "Minimum margin per modality, as '{audio: 0.2, audio_video: -0.1}'. Without a value a winner "
            "must be strictly better. A negative value lets it be worse by that much. null exempts the modality from "
            "the rule; it still counts in the sum."
        },
    )
    winner_gates: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Conditions that each winner must meet, as 'audio_quality >= 5' 'desync <= 0.4' "
            "'audio_score >= 0', each on a column of numbers or a modality score. A candidate that fails one may still "
            "lose."
        },
    )
    pairs_per_prompt: int = field(
        default=1, metadata={"help": "Maximum number of pairs per prompt: the distinct pairs with the largest margins."}
    )

    def __post_init__(self) -> None:
        """Check the values. Raises ValueError if one is out of range."""
        if not (math.isfinite(self.min_margin) and self.min_margin >= 0):
            raise ValueError(f"min_margin is {self.min_margin}, but must be a finite number, 0 or more.")
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
        """Return the conditions, without the fields of a subclass."""
        return {name: getattr(self, name) for name in PairRules.__dataclass_fields__}


@dataclass(frozen=True)
class Gate:
    """A condition `column >= threshold` or `column <= threshold`."""

    column: str
    at_least: bool
    threshold: float

    def passes(self, values: np.ndarray) -> np.ndarray:
        """Return a mask of the values (N,) that meet the condition; a missing value (NaN) fails."""
        return values >= self.threshold if self.at_least else values <= self.threshold


def parse_gate(text: str) -> Gate:
    """Parse a text such as `audio_quality >= 5`. Raises ValueError if it has another form."""
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
    """Conditions on a winner's margins, per compared modality (M,)."""

    strict: np.ndarray  # (M,) whether the margin must be above 0
    minimum: np.ndarray  # (M,) minimum margin; -inf for none
    min_total: float

    @staticmethod
    def of(rules: PairRules, strategy: str) -> Demand:
        """Build the conditions for all modalities. Only modality strategies need a strictly better winner in each."""
        margins: Mapping[str, float | None] = rules.min_modality_margins
        minimum = np.array([-np.inf if margins.get(name) is None else margins[name] for name in MODALITIES], float)
        asked = np.array([name not in margins or minimum[k] > 0 for k, name in enumerate(MODALITIES)])
        return Demand(asked & (strategy != "agnostic"), minimum, rules.min_margin)


def check_rules(rules: PairRules, strategy: str, has_statistics: bool) -> None:
    """Check that the strategy can apply the conditions and the statistics. Raises ValueError if it cannot."""
    if strategy == "inconsistent" and (rules.min_margin or rules.min_modality_margins):
        raise ValueError(
            "strategy inconsistent takes picture and sound from different pairs, so a minimum margin of the whole has "
            "no meaning. Leave out min_margin and min_modality_margins, or choose another strategy."
        )
    if strategy == "modality_macro" and has_statistics:
        raise ValueError(
            "strategy modality_macro compares ranks within one table, which statistics of another table cannot change. "
            "Leave out statistics, or rank by modality_micro."
        )


def _is_finite_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
