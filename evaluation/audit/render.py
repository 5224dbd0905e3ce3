"""Output of an audit as aligned text tables, JSON and CSV."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from core.text_table import table_lines
from evaluation.audit.result import Audit, Pairing
from evaluation.statistics.bootstrap import CONFIDENCE
from evaluation.statistics.correlation import Correlation

_REWARD_HEADER = (*("", "modality", "failed", "ties", "flat", "std within", "std between", "best of K", "truth wins"),)
_LEGEND = (
    "failed: candidates without a score. ties: of the pairs within a prompt. flat: prompts whose scores are all equal.",
    "best of K: best less mean of a prompt, in standard deviations over all candidates; overall: mean of modalities.",
    "truth wins: prompts whose ground truth is better than every candidate. Higher is better for all rewards here.",
)


def audit_text(audit: Audit, title: str, notes: Sequence[str] = ()) -> str:
    """Return the audit as text: the rewards, their correlations, the warnings.

    Args:
        title: what was audited.
        notes: further remarks.
    """
    blocks = [[_heading(audit, title), *_reward_table(audit), *_LEGEND]]
    numbers = {one.name: number for number, one in enumerate(audit.rewards, start=1)}
    for kind, text in (("rewards", "Rewards"), ("counter", "Counter-metrics and rewards")):
        pairings = [one for one in audit.correlations if one.kind == kind]
        if pairings:
            blocks.append(_matrix(text, numbers, pairings))
    blocks.append([f"warning: {text}" for text in audit.warnings] or ["no warnings"])
    blocks.append([f"note: {note}" for note in notes])
    return "\n\n".join("\n".join(block) for block in blocks if block)


def audit_json(audit: Audit, settings: dict[str, Any], notes: Sequence[str]) -> str:
    """Return all figures, warnings, notes and settings as a JSON document."""
    document = asdict(audit)
    for column in document["columns"]:
        column["needs"] = None if column["needs"] is None else sorted(column["needs"])
    document |= {"confidence": CONFIDENCE, "notes": list(notes), "settings": settings}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def audit_csv(audit: Audit) -> str:
    """Return a row per reward, per pair of rewards, and per reward and counter-metric; other columns are empty."""
    rows: list[dict[str, Any]] = [{"kind": "reward", **asdict(one)} for one in audit.rewards]
    rows += [
        {"kind": one.kind, "name": one.first, "other": one.second, **asdict(one.correlation)}
        for one in audit.correlations
    ]
    frame = pd.DataFrame(rows).convert_dtypes()
    first = [name for name in ("kind", "name", "other") if name in frame]
    return frame[[*first, *(name for name in frame if name not in first)]].to_csv(index=False)


def _heading(audit: Audit, title: str) -> str:
    sizes = audit.group_sizes
    span = f"{sizes[0]}" if sizes[0] == sizes[-1] else f"{sizes[0]} to {sizes[-1]}"
    truth = f", and {audit.num_ground_truth} ground-truth clips" if audit.num_ground_truth else ""
    return f"{title}: {sum(sizes)} candidates of {len(sizes)} prompts, {span} each{truth}"


def _reward_table(audit: Audit) -> list[str]:
    rows = [
        (
            f"{number} {one.name}",
            one.modality or "?",
            _percent(one.failed),
            _percent(one.ties),
            _percent(one.flat_groups),
            _number(one.within_std, ".4f"),
            _number(one.between_std, ".4f"),
            _number(one.headroom, "+.2f"),
            _percent(one.truth_wins),
        )
        for number, one in enumerate(audit.rewards, start=1)
    ]
    overall = ("overall", *[""] * 6, _number(audit.headroom, "+.2f"), _percent(audit.truth_wins))
    return table_lines([_REWARD_HEADER, *rows, overall], "llr")


def _matrix(title: str, numbers: Mapping[str, int], pairings: Sequence[Pairing]) -> list[str]:
    """Return correlations as a table; a pair of rewards stands once, below the diagonal.

    Args:
        numbers: of the rewards, which head the columns: names would make the table too wide for a terminal.
    """
    cells = {(one.second, one.first): _cell(one.correlation) for one in pairings}
    rows, columns = (list(dict.fromkeys(names)) for names in zip(*cells, strict=True))
    counts = sorted({one.correlation.num_samples for one in pairings})
    number = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    is_square = pairings[0].kind == "rewards"
    names = {row: f"{numbers[row]} {row}" if is_square else row for row in rows}
    table = [["", *(str(numbers[column]) for column in columns)]]
    table += [[names[row], *(cells.get((row, column), "") for column in columns)] for row in rows]
    return [f"{title}, correlation within prompts: Pearson (Spearman); {number} candidates", *table_lines(table, "lr")]


def _cell(one: Correlation) -> str:
    return f"{_number(one.pearson, '+.2f')} ({_number(one.spearman, '+.2f')})" if one.pearson is not None else "-"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
