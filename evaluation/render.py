"""A comparison as an aligned text table, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from evaluation.bootstrap import CONFIDENCE
from evaluation.figures import ComparisonRow
from evaluation.tables import LeftOut, PairedScores

_ARROWS = {True: "\u2191", False: "\u2193"}
_MAX_NAMED = 10  # left-out samples listed on the screen; comparison.json has them all
_HEADER = ("", "n", "baseline", "candidate", "difference", "95 % interval", "win rate", "95 % interval", "")


def comparison_text(rows: Sequence[ComparisonRow], pairs: PairedScores) -> str:
    """The table a person reads: metrics, modalities, overall, then what was left out and why."""
    cells = [_cells(row) for row in rows]
    widths = [max(len(line[i]) for line in [_HEADER, *cells]) for i in range(len(_HEADER))]

    def line(values: Sequence[str]) -> str:
        name, *figures, verdict = (value.rjust(width) for value, width in zip(values, widths, strict=True))
        return "  ".join([name.strip().ljust(widths[0]), *figures, verdict.strip()]).rstrip()

    lines = [line(_HEADER)]
    previous = rows[0].kind if rows else ""
    for row, values in zip(rows, cells, strict=True):
        if row.kind != previous:
            lines.append("-" * (sum(widths) + 2 * (len(widths) - 1)))
        previous = row.kind
        lines.append(line(values))
    num_prompts = len(set(pairs.prompt_ids))
    lines.append("")
    lines.append(
        f"n: pairs behind each figure, of {pairs.num_pairs} pairs over {num_prompts} prompts; a tie counts half a win."
    )
    lines.append("Modality rows: mean of metrics standardised over both models, higher is better.")
    return "\n".join([*lines, *_remarks(rows, pairs)])


def comparison_json(rows: Sequence[ComparisonRow], pairs: PairedScores, settings: dict[str, Any]) -> str:
    document = {
        "settings": settings,
        "confidence": CONFIDENCE,
        "num_pairs": pairs.num_pairs,
        "num_prompts": len(set(pairs.prompt_ids)),
        "num_ground_truth_rows": pairs.num_ground_truth,
        "left_out": [asdict(row) for row in pairs.left_out],
        "undefined": {name: _undefined_ids(pairs, name) for name in pairs.baseline.columns},
        "notes": list(pairs.notes),
        "rows": [asdict(row) | {"verdict": row.verdict} for row in rows],
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def comparison_csv(rows: Sequence[ComparisonRow]) -> str:
    buffer = io.StringIO()
    names = [field.name for field in fields(ComparisonRow)]
    writer = csv.DictWriter(buffer, [*names, "verdict"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) | {"verdict": row.verdict} for row in rows)
    return buffer.getvalue()


def _cells(row: ComparisonRow) -> tuple[str, ...]:
    return (
        f"{row.name} {_ARROWS[row.higher_is_better]}",
        str(row.num_samples),
        _figure(row.baseline_mean),
        _figure(row.candidate_mean),
        _figure(row.difference, "+.4f"),
        _interval(row.difference_low, row.difference_high, "+.4f"),
        _figure(row.win_rate, ".3f"),
        _interval(row.win_rate_low, row.win_rate_high, ".3f"),
        row.verdict,
    )


def _figure(value: float | None, form: str = ".4f") -> str:
    return "-" if value is None else format(value, form)


def _interval(low: float | None, high: float | None, form: str) -> str:
    return "-" if low is None or high is None else f"[{low:{form}}, {high:{form}}]"


def _remarks(rows: Sequence[ComparisonRow], pairs: PairedScores) -> list[str]:
    lines = []
    if pairs.left_out:
        lines.append(f"left out: {pairs.num_left_out} samples")
        lines += [f"  {_describe(row)}" for row in pairs.left_out[:_MAX_NAMED]]
        if len(pairs.left_out) > _MAX_NAMED:
            lines.append(f"  ... and {len(pairs.left_out) - _MAX_NAMED} more rows, all named in comparison.json")
    undefined = [f"{row.name} {pairs.num_pairs - row.num_samples}" for row in rows if row.num_samples < pairs.num_pairs]
    if undefined:
        lines.append(f"pairs without a score on one or both sides: {', '.join(undefined)}")
    if pairs.num_ground_truth:
        lines.append(f"ground-truth rows set aside: {pairs.num_ground_truth}")
    return lines + [f"note: {note}" for note in pairs.notes]


def _describe(row: LeftOut) -> str:
    # An id or error text may hold newlines; on the screen each stays on its line.
    return " ".join(f"{row.model} {row.candidate_id}: {row.reason}".split())


def _undefined_ids(pairs: PairedScores, name: str) -> list[str]:
    missing = pairs.baseline[name].isna() | pairs.candidate[name].isna()
    return [str(key) for key in pairs.baseline.index[missing.to_numpy()]]
