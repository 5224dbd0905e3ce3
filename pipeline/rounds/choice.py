"""Choice of the best round by held-out judges, and the test whether the last round is worse than the best before."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pipeline.rounds.config import RoundsConfig

CHOICE_NAME = "best.json"
NUM_BOOTSTRAP = 2000


@dataclass(frozen=True)
class RoundChoice:
    """The best round so far, 0 for the starting model.

    Attributes:
        best: number of the best round.
        judges: metrics that decided: those that no training used, or all if every metric was trained on.
        are_held_out: false if every metric was trained on.
        last: number of the last round.
        difference, low, high: mean standardised difference over the judges, the last round minus the best of the
            rounds before it, with its 95 % interval over prompts.
    """

    best: int
    judges: tuple[str, ...]
    are_held_out: bool
    last: int
    difference: float
    low: float
    high: float

    @property
    def declines(self) -> bool:
        """True if the interval of the last round's difference lies below 0."""
        return self.high < 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def sentence(self) -> str:
        """Return the choice as one line of text."""
        kind = "held-out judges" if self.are_held_out else "all metrics, because each was trained on"
        best = f"round {self.best}" if self.best else "the starting model"
        return (
            f"best: {best}, by {kind} ({', '.join(self.judges)}); round {self.last} against the best before it: "
            f"{self.difference:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"
        )


def choose_round(config: RoundsConfig, last: int) -> RoundChoice:
    """Return the best of the starting model and the rounds up to `last`.

    A round replaces the best one before it if the mean standardised difference over the judges is positive; an interval
    decides only whether a decline is certain.
    """
    assert last >= 1, "the starting model alone leaves no choice"
    best, choice = 0, None
    for number in range(1, last + 1):
        choice = _against(config, best, number)
        best = choice.best
    assert choice is not None
    return choice


def _against(config: RoundsConfig, best: int, number: int) -> RoundChoice:
    from evaluation.compare.held_out import held_out_difference  # imported late: imports scipy
    from evaluation.compare.tables import read_pairs

    pairs = read_pairs(config.folder(best) / "evaluation", config.folder(number) / "evaluation")
    found = held_out_difference(pairs, num_bootstrap=NUM_BOOTSTRAP, seed=0)
    return RoundChoice(
        best=number if found.difference > 0 else best,
        judges=found.judges,
        are_held_out=found.are_held_out,
        last=number,
        difference=found.difference,
        low=found.low,
        high=found.high,
    )
