"""Output of comparisons as aligned text tables, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from core.text_table import table_lines
from evaluation.compare.cells import INTERVAL, figure, interval
from evaluation.compare.figures import Comparison, ComparisonRow
from evaluation.compare.model_table import LeftOut
from evaluation.compare.render_lineage import SYMBOLS, training_notes
from evaluation.compare.render_shifts import shift_explanations, shift_lines
from evaluation.compare.shifts import ShiftRow
from evaluation.compare.tables import PairedScores
from evaluation.statistics.bootstrap import CONFIDENCE
from evaluation.statistics.significance import NUM_FLIPS

_ARROWS = {True: "\u2191", False: "\u2193"}
_MAX_NAMED = 10  # left-out samples in the text; comparison.json lists them all
_HEADER = ("", "n", "baseline", "candidate", "difference", INTERVAL, "win/tie/loss", "p", "Holm p", "")


def comparison_text(comparisons: Sequence[Comparison], notes: Sequence[str] = ()) -> str:
    """Return the comparison as text: per candidate a table and its left-out samples, then the notes on the columns.

    Args:
        notes: on the counter-metrics.
    """
    blocks = [["\n".join([_heading(one.pairs), *_table(one.rows)]), *_remarks(one)] for one in comparisons]
    blocks.append([*_explanations(comparisons), *training_notes(comparisons)])
    blocks += [block for one in comparisons if (block := shift_lines(one))]
    blocks.append([*shift_explanations(comparisons), *(f"note: {note}" for note in notes)])
    return "\n\n".join("\n".join(block) for block in blocks if block)


def comparison_json(comparisons: Sequence[Comparison], settings: dict[str, Any], notes: Sequence[str] = ()) -> str:
    """Return all figures, left-out samples, lineages and settings as a JSON document; `notes` as in the text."""
    lineages = {name: lineage for one in comparisons for name, lineage in one.pairs.lineages.items()}
    document = {
        "settings": settings,
        "confidence": CONFIDENCE,
        "num_flips": NUM_FLIPS,
        "baseline": comparisons[0].pairs.names[0],
        "lineages": {name: lineage.to_dict() for name, lineage in lineages.items()},
        "counter_notes": list(notes),
        "comparisons": [_document(one) for one in comparisons],
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def comparison_csv(comparisons: Sequence[Comparison]) -> str:
    """Return the rows of all candidates as CSV with a header; columns that a kind of row does not have are empty."""
    buffer = io.StringIO()
    names = dict.fromkeys(field.name for kind in (ComparisonRow, ShiftRow) for field in fields(kind))
    writer = csv.DictWriter(buffer, ["baseline", "candidate", *names, "verdict"], lineterminator="\n")
    writer.writeheader()
    for one in comparisons:
        models = dict(zip(("baseline", "candidate"), one.pairs.names, strict=True))
        for row in one.rows:
            values = asdict(row) | {"marked_models": " ".join(row.marked_models), "verdict": row.verdict}
            writer.writerow(models | values)
        writer.writerows(models | asdict(row) | {"verdict": row.verdict} for row in one.shifts)
    return buffer.getvalue()


def _document(comparison: Comparison) -> dict[str, Any]:
    pairs = comparison.pairs
    return {
        "candidate": pairs.names[1],
        "num_pairs": pairs.num_pairs,
        "num_prompts": pairs.num_prompts,
        "num_ground_truth_rows": pairs.num_ground_truth,
        "left_out": [asdict(row) for row in pairs.left_out],
        "undefined": {name: _undefined_ids(pairs, name) for name in pairs.baseline.columns},
        "notes": list(pairs.notes),
        "rows": [asdict(row) | {"verdict": row.verdict} for row in comparison.rows],
        "counters": {
            "rows": [asdict(row) | {"verdict": row.verdict} for row in comparison.shifts],
            "warnings": list(comparison.warnings),
        },
    }


def _heading(pairs: PairedScores) -> str:
    baseline, candidate = pairs.names
    return f"{candidate} against {baseline}: {pairs.num_pairs} pairs over {pairs.num_prompts} prompts"


def _table(rows: Sequence[ComparisonRow]) -> list[str]:
    """Return the lines of the table, with a rule between metrics, modalities and overall."""
    header, *aligned = table_lines([_HEADER, *map(_cells, rows)], "lrrrrrrrrl")
    rule = "-" * max(map(len, [header, *aligned]))
    lines = [header]
    for place, line in enumerate(aligned):
        if place and rows[place].kind != rows[place - 1].kind:
            lines.append(rule)
        lines.append(line)
    return lines


def _cells(row: ComparisonRow) -> tuple[str, ...]:
    return (
        f"{row.name} {_ARROWS[row.higher_is_better]} {SYMBOLS[row.training]}".rstrip(),
        str(row.num_samples),
        figure(row.baseline_mean),
        figure(row.candidate_mean),
        figure(row.difference, "+.4f"),
        interval(row.difference_low, row.difference_high),
        f"{row.wins}/{row.ties}/{row.losses}",
        figure(row.p_value),
        figure(row.p_corrected),
        row.verdict,
    )


def _remarks(comparison: Comparison) -> list[str]:
    """Return lines on the samples left out of a table, undefined scores and other notes."""
    pairs, lines = comparison.pairs, []
    if pairs.left_out:
        lines.append(f"left out: {pairs.num_left_out} samples")
        lines += [f"  {_describe(row)}" for row in pairs.left_out[:_MAX_NAMED]]
        if len(pairs.left_out) > _MAX_NAMED:
            lines.append(f"  ... and {len(pairs.left_out) - _MAX_NAMED} more rows, all named in comparison.json")
    undefined = [
        f"{row.name} {pairs.num_pairs - row.num_samples}"
        for row in comparison.rows
        if row.num_samples < pairs.num_pairs
    ]
    if undefined:
        lines.append(f"pairs without a score on one or both sides: {', '.join(undefined)}")
    if pairs.num_ground_truth:
        lines.append(f"ground-truth rows not compared: {pairs.num_ground_truth}")
    return lines + [f"note: {note}" for note in pairs.notes]


def _explanations(comparisons: Sequence[Comparison]) -> list[str]:
    several = f" of all {len(comparisons)} candidates" if len(comparisons) > 1 else ""
    return [
        "n: number of pairs of each figure. Interval: paired bootstrap over prompts.",
        f"p: two-sided sign-flip test over prompts, {NUM_FLIPS} flips. Holm p: corrected over all metrics{several},",
        "modality rows separately; better or worse: Holm p of at most 0.05.",
        "Modality rows: mean of metrics standardised over both models, higher is better.",
    ]


def _describe(row: LeftOut) -> str:
    # An id or an error text may contain newlines; each description stays on one line.
    return " ".join(f"{row.model} {row.candidate_id}: {row.reason}".split())


def _undefined_ids(pairs: PairedScores, name: str) -> list[str]:
    missing = pairs.baseline[name].isna() | pairs.candidate[name].isna()
    return [str(key) for key in pairs.baseline.index[missing.to_numpy()]]
