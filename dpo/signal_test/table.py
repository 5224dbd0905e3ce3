"""Table, verdicts and sentences of a signal test, with bootstrap intervals over clips."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np

from core.text_table import table_lines
from dpo.data.schema import MODALITIES
from dpo.data.verdict import Verdict
from dpo.signal_test.measure import Errors, partner_of
from evaluation.statistics.bootstrap import bootstrap_interval
from model.train.metrics import NUM_SIGMA_BINS, sigma_label

ALL = "all"
NUM_BOOTSTRAP = 2000
# Least share of the difference that an unrelated partner takes away, where a modality's error counts as carrying sync.
MIN_SIGNAL_SHARE = 0.5


@dataclass(frozen=True)
class Interval:
    """A mean over clips with its 95 % bootstrap interval; NaN bounds with fewer than two clips."""

    mean: float
    low: float
    high: float

    @property
    def is_positive(self) -> bool:
        return self.low > 0

    @property
    def is_zero(self) -> bool:
        """True if the interval holds 0."""
        return not (self.low > 0 or self.high < 0)

    def __str__(self) -> str:
        return f"{self.mean:+.4f} ({self.low:+.4f} .. {self.high:+.4f})"


@dataclass(frozen=True)
class SignalRow:
    """Differences of the errors, loser minus winner, of one modality at one distortion and noise level.

    Attributes:
        distortion: label of the distortion, or "all".
        modality: modality of the error.
        sigma: bin of the noise level, or "all".
        num_draws: number of draws.
        winner_own, winner_unrelated: mean error of the winner, with its own partner and with an unrelated one.
        own, unrelated: difference with the own partner and with an unrelated one.
        signal: own minus unrelated.
    """

    distortion: str
    modality: str
    sigma: str
    num_draws: int
    winner_own: float
    winner_unrelated: float
    own: Interval
    unrelated: Interval
    signal: Interval


def signal_rows(errors: Errors, seed: int) -> list[SignalRow]:
    """Return the rows of all distortions together, then of each one if there are several, by modality and noise level.

    Noise levels without draws are left out.
    """
    labels = list(dict.fromkeys(errors.labels.tolist()))
    bins = np.minimum((errors.sigma * NUM_SIGMA_BINS).astype(int), NUM_SIGMA_BINS - 1)
    rows = []
    for label in [ALL, *(labels if len(labels) > 1 else [])]:
        of_label = np.ones(len(bins), bool) if label == ALL else errors.labels == label
        for modality in MODALITIES:
            levels = {ALL: of_label} | {sigma_label(one): of_label & (bins == one) for one in range(NUM_SIGMA_BINS)}
            rows += [
                _row(errors, chosen, label, modality, level.removeprefix("sigma_"), seed)
                for level, chosen in levels.items()
                if chosen.any()
            ]
    return rows


def verdicts(rows: Sequence[SignalRow]) -> dict[str, Verdict]:
    """Return the verdict of each modality over all distortions and noise levels."""
    return {row.modality: verdict(row) for row in _overall(rows)}


def verdict(row: SignalRow) -> Verdict:
    """Return what a row shows: "signal", "mark" or "none" (see `dpo.data.verdict`).

    An error carries the signal if the signal's interval lies above 0 and an unrelated partner takes at least half of
    the difference away; of the other errors, those that differ at all carry the mark of the distortion.
    """
    if row.signal.is_positive and row.signal.mean >= MIN_SIGNAL_SHARE * row.own.mean:
        return "signal"
    return "none" if row.own.is_zero and row.unrelated.is_zero else "mark"


def sentences(rows: Sequence[SignalRow]) -> list[str]:
    """Return a plain sentence on each modality."""
    return [_sentence(row) for row in _overall(rows)]


def text_table(rows: Sequence[SignalRow]) -> list[str]:
    """Return the rows over all noise levels as lines for the terminal."""
    header = ("distortion", "error of", "own partner", "unrelated partner", "signal")
    cells = [
        (row.distortion, row.modality, str(row.own), str(row.unrelated), str(row.signal))
        for row in rows
        if row.sigma == ALL
    ]
    return table_lines([header, *cells], "llr")


def flat(row: SignalRow) -> dict[str, str | int | float | None]:
    """Return a row as plain columns; bounds that are not defined are None."""
    columns: dict[str, str | int | float | None] = {}
    for field in fields(row):
        value = getattr(row, field.name)
        if isinstance(value, Interval):
            bounds = {f"{field.name}_{name}": bound for name, bound in asdict(value).items() if name != "mean"}
            columns |= {field.name: value.mean} | {k: v if np.isfinite(v) else None for k, v in bounds.items()}
        else:
            columns[field.name] = value
    return columns


def csv_text(rows: Sequence[SignalRow]) -> str:
    """Return the rows as CSV."""
    flattened: list[Mapping[str, str | int | float | None]] = [flat(row) for row in rows]
    content = io.StringIO()
    writer = csv.DictWriter(content, list(flattened[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flattened)
    return content.getvalue()


def _overall(rows: Sequence[SignalRow]) -> list[SignalRow]:
    return [row for row in rows if row.distortion == ALL and row.sigma == ALL]


def _row(errors: Errors, chosen: np.ndarray, label: str, modality: str, sigma: str, seed: int) -> SignalRow:
    difference = errors.difference(modality)[chosen]  # (n, 2)
    values = np.column_stack([difference, difference[:, 0] - difference[:, 1]])
    low, high = bootstrap_interval(values, errors.clips[chosen], num_bootstrap=NUM_BOOTSTRAP, seed=seed)
    own, unrelated, signal = (
        Interval(*map(float, bounds)) for bounds in zip(values.mean(axis=0), low, high, strict=True)
    )
    own_error, unrelated_error = errors.winner[modality][chosen].mean(axis=0).tolist()
    return SignalRow(label, modality, sigma, int(chosen.sum()), own_error, unrelated_error, own, unrelated, signal)


def _sentence(row: SignalRow) -> str:
    name, partner = row.modality, partner_of(row.modality)
    found = verdict(row)
    # The modality that both members share is exchanged, whichever error is looked at.
    numbers = (
        f"the {name} error of the loser is {row.own.mean:+.4f} above the winner's, and {row.unrelated.mean:+.4f} when "
        f"picture and sound are of unrelated clips; the difference, {row.signal}, is what depends on sync"
    )
    if found == "signal":
        return f"{name}: carries the sync signal. {_upper(numbers)}."
    if found == "mark":
        return (
            f"{name}: carries the mark of the distortion, not sync. {_upper(numbers)}. A preference on it would teach "
            f"the mark: set beta_{name} 0."
        )
    return f"{name}: does not tell winner from loser, whatever the {partner}. {_upper(numbers)}."


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]
