"""The text of ranking.txt, which describes ranking.json in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from core.text_table import table_lines
from pipeline.rank.input import RANKED_METRICS
from pipeline.rank.rules import MODALITIES

SHORT = {
    "visual_quality": "visual",
    "motion_quality": "motion",
    "audio_quality": "audio_q",
    "audio_video": "av",
}

NEARLY_ALL = 0.9  # of the pairs
MIN_CANDIDATES = 4  # generated ones per prompt: with fewer, few prompts have one that is better in every modality


def describe(report: dict[str, Any]) -> str:
    """Format the whole report as text, one topic per paragraph."""
    paragraphs = [
        _settings(report),
        _yield(report),
        _candidates(report),
        _ground_truth(report),
        _metrics(report),
        _conflict(report),
    ]
    return "\n\n".join(text for text in paragraphs if text) + "\n"


def yield_line(report: dict[str, Any]) -> str:
    """Return a line such as `rank: 340 pairs from 400 prompts (85%); 60 x no candidate is better in every modality`."""
    reasons = "".join(f"; {count} x {reason}" for reason, count in report["attrition"].items())
    return f"rank: {report['num_pairs']} pairs from {report['num_prompts']} prompts ({report['yield']:.0%}){reasons}"


def ground_truth_warning(report: dict[str, Any]) -> str | None:
    """Return what is wrong and what to do where ground truth wins (nearly) all pairs; None where it does not.

    Such pairs differ in more than quality: a model learns to tell clips of a camera from its own.
    """
    num_pairs, num_won = report["num_pairs"], report["ground_truth_wins"]["chosen"]
    if not num_pairs or num_won < NEARLY_ALL * num_pairs:
        return None
    share = f"all {num_pairs:,}" if num_won == num_pairs else f"{num_won:,} of {num_pairs:,}"
    counts = report["candidates"]
    generated = (counts["total"] - counts["ground_truth"]) / report["num_prompts"]
    more = f" and sample {MIN_CANDIDATES} or more candidates per prompt" if generated < MIN_CANDIDATES else ""
    return (
        f"ground truth is the winner of {share} pairs: the pairs teach real against generated, not better against "
        f"worse. Set ground_truth to never{more}."
    )


def _settings(report: dict[str, Any]) -> str:
    rules = report["rules"]
    margins = dict.fromkeys(MODALITIES, "above 0") | {
        name: "left out" if margin is None else f"at least {margin:g}"
        for name, margin in rules["min_modality_margins"].items()
    }
    if report["strategy"] in ("agnostic", "inconsistent"):
        margins = {name: text for name, text in margins.items() if name in rules["min_modality_margins"]}
    lines = [
        f"Ranking by {report['strategy']}, ground truth: {report['ground_truth']}",
        f"  margins: {_margin_text(margins, rules['min_margin'])}",
        f"  gates for the winner: {', '.join(rules['winner_gates']) or 'none'}",
        f"  pairs per prompt: up to {rules['pairs_per_prompt']}",
        "  ties: an equal score is no better score; equal margins go to the first candidate by index "
        f"({report['tied_margins']:,} prompts)",
        "  nulls: a candidate with a missing score takes no part",
    ]
    if "own_statistics" in report:
        lines.append("  standardised by the statistics of an earlier ranking")
    return "\n".join(lines)


def _margin_text(margins: dict[str, str], min_margin: float) -> str:
    total = f"at least {min_margin:g}" if min_margin else "above 0"
    return ", ".join([*(f"{name} {text}" for name, text in margins.items()), f"sum {total}"])


def _yield(report: dict[str, Any]) -> str:
    lines = [
        f"{report['num_pairs']:,} pairs; {report['num_prompts_with_pair']:,} of {report['num_prompts']:,} prompts "
        f"gave one ({report['yield']:.1%})"
    ]
    reasons = [(f"{n:,}", f"{n / report['num_prompts']:.1%}", reason) for reason, n in report["attrition"].items()]
    lines += [f"  {line}" for line in table_lines(reasons, "rrl")]
    if report["candidate_pairs"]:
        stages = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in report["candidate_pairs"].items())
        lines.append(f"  pairs of candidates: {stages}")
    return "\n".join(lines)


def _candidates(report: dict[str, Any]) -> str:
    counts = report["candidates"]
    missing = [f"{name} {count:,}" for name, count in counts["missing_scores"].items() if count]
    text = f"{counts['total']:,} candidates, {counts['ground_truth']:,} of them ground truth"
    if missing:
        left_out = counts["left_out_for_missing_scores"]
        text += f"; {left_out:,} left out for missing scores ({', '.join(missing)})"
    return text


def _ground_truth(report: dict[str, Any]) -> str:
    wins = report["ground_truth_wins"]
    if not wins["comparisons"]:
        return ""
    rates = ", ".join(f"{name} {rate:.1%}" for name, rate in wins["win_rate"].items())
    text = (
        f"Ground truth against generated candidates of its prompt ({wins['comparisons']:,} comparisons)\n"
        f"  it is better: {rates}\n  it is chosen in {wins['chosen']:,} pairs and rejected in {wins['rejected']:,}"
    )
    warning = ground_truth_warning(report)
    return text if warning is None else f"{text}\n  warning: {warning}"


def _metrics(report: dict[str, Any]) -> str:
    rows = [["metric", "mean", "deviation", "winner better", "ground truth better"]]
    truth = report["ground_truth_wins"]["metric_win_rate"]
    for name in RANKED_METRICS:
        statistics = report["statistics"][name]
        moments = [f"{statistics['mean']:.4g}", f"{statistics['std']:.4g}"]
        rows.append([name, *moments, _percent(report["chosen_is_better"].get(name)), _percent(truth.get(name))])
    return _titled("Metrics", rows)


def _conflict(report: dict[str, Any]) -> str:
    conflict = report["conflict"]
    rows = [["", *map(_short, conflict)]]
    rows += [[name, *(_percent(conflict[name][other]) for other in conflict)] for name in conflict]
    return _titled("Conflict: how often two order two candidates of a prompt differently (50% = unrelated)", rows)


def _titled(title: str, rows: Sequence[Sequence[str]], align: str = "lr") -> str:
    return "\n".join([title, *(f"  {line}" for line in table_lines(rows, align))])


def _short(name: str) -> str:
    return SHORT.get(name, name)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
