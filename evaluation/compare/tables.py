"""Pairing of the samples of two models by candidate_id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from core.lineage import Lineage
from core.score_origin import ScoreOrigin
from evaluation.compare.model_table import LeftOut, ModelTable, TableError, read_model

_DURATION_TOLERANCE_S = 0.05


@dataclass(frozen=True, eq=False)
class PairedScores:
    """Scores of two models on the same prompts and seeds; row i of both tables is the same candidate_id."""

    names: tuple[str, str]  # baseline, candidate
    prompt_ids: np.ndarray  # (N,) str
    baseline: pd.DataFrame  # (N, K), indexed by candidate_id; NaN = undefined
    candidate: pd.DataFrame  # (N, K)
    higher_is_better: dict[str, bool]
    origins: dict[str, ScoreOrigin]  # metric -> the reward that computed it, if one of the tables records it
    lineages: dict[str, Lineage]  # model name -> its preference trainings
    left_out: tuple[LeftOut, ...]
    num_ground_truth: int
    notes: tuple[str, ...]

    @property
    def num_pairs(self) -> int:
        return len(self.baseline)

    @property
    def num_prompts(self) -> int:
        return len(set(self.prompt_ids))

    @property
    def num_left_out(self) -> int:
        """Number of candidate_ids without a pair (one that is missing on both sides counts once)."""
        return len({row.candidate_id for row in self.left_out})


def read_models(folders: Sequence[Path]) -> list[ModelTable]:
    """Read the models in these folders and name them as `model_names` does.

    Raises:
        TableError: if a folder is given twice, or its tables cannot be read.
    """
    return [read_model(folder, name) for folder, name in zip(folders, model_names(folders), strict=True)]


def model_names(folders: Sequence[Path]) -> list[str]:
    """Return the shortest endings of the paths that are unique, with an equal number of parts.

    Examples: `sft` and `dpo`, or `initial/evaluation` and `round-1/evaluation`.

    Raises:
        TableError: if a folder is given twice.
    """
    parts = [folder.resolve().parts for folder in folders]
    if len(set(parts)) < len(parts):
        twice = next(folder for folder, one in zip(folders, parts, strict=True) if parts.count(one) > 1)
        raise TableError(f"{twice} is given twice, but a model cannot be compared with itself. Give each folder once.")
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(one[-length:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    raise AssertionError("different paths have different full names")


def read_pairs(baseline: Path, candidate: Path) -> PairedScores:
    """Read both models' folders (as `read_model` does) and pair them.

    Raises:
        TableError: if a table or column is missing, no candidate_id is in both, or seeds or prompts of an id differ.
    """
    return pair_models(*read_models([baseline, candidate]))


def pair_models(baseline: ModelTable, candidate: ModelTable) -> PairedScores:
    """Pair the rows that both models have, in candidate_id order; rows without a partner are listed in `left_out`.

    Raises:
        TableError: if no candidate_id is in both models, or seeds or prompts of an id differ.
    """
    common = baseline.rows.index.intersection(candidate.rows.index).sort_values()
    if common.empty:
        raise TableError(_no_common_message(baseline, candidate))
    _check_equal(baseline, candidate, common, "seed", "sample both models with the same run seed and --num_candidates")
    _check_equal(baseline, candidate, common, "prompt", "sample both models from the same prompts table")
    both = [name for name in baseline.higher_is_better if name in candidate.higher_is_better]
    metrics = [name for name in both if _is_comparable(baseline, candidate, name)]
    notes = [
        *baseline.notes,
        *candidate.notes,
        *_column_notes(baseline, candidate),
        *_origin_notes(baseline, candidate, [name for name in both if name not in metrics]),
        *_seed_notes(baseline, candidate, common),
        *_duration_notes(baseline, candidate),
    ]
    return PairedScores(
        names=(baseline.model, candidate.model),
        prompt_ids=baseline.rows.loc[common, "prompt_id"].to_numpy(),
        baseline=baseline.rows.loc[common, metrics].astype(np.float64),
        candidate=candidate.rows.loc[common, metrics].astype(np.float64),
        higher_is_better={name: baseline.higher_is_better[name] for name in metrics},
        origins={name: (baseline if baseline.origins[name].reward else candidate).origins[name] for name in metrics},
        lineages={table.model: table.lineage for table in (baseline, candidate)},
        left_out=(
            *baseline.left_out,
            *candidate.left_out,
            *_unpaired(baseline, candidate),
            *_unpaired(candidate, baseline),
        ),
        num_ground_truth=baseline.num_ground_truth + candidate.num_ground_truth,
        notes=tuple(notes),
    )


def _no_common_message(baseline: ModelTable, candidate: ModelTable) -> str:
    def describe(table: ModelTable) -> str:
        ids = ", ".join(map(repr, table.rows.index[:3])) or "none"
        return f"{table.folder} has {len(table.rows)} usable samples ({ids}, ...; {len(table.left_out)} left out)"

    reasons = "; ".join(f"{row.candidate_id}: {row.reason}" for row in (*baseline.left_out, *candidate.left_out)[:3])
    return (
        f"{describe(baseline)}; {describe(candidate)}. No candidate_id is usable in both, so nothing can be paired"
        f"{f' ({reasons})' if reasons else ''}. Sample and score both models on the same prompts table."
    )


def _check_equal(baseline: ModelTable, candidate: ModelTable, common: pd.Index, column: str, remedy: str) -> None:
    """Raise TableError if known values of a column differ between the models; an unknown value matches any."""
    left, right = baseline.rows.loc[common, column], candidate.rows.loc[common, column]
    different = common[((left != right) & left.notna() & right.notna()).to_numpy()]
    if not different.empty:
        examples = "; ".join(f"{key}: {left[key]!r} and {right[key]!r}" for key in different[:3])
        raise TableError(
            f"{len(different)} of {len(common)} candidates have another {column} in {baseline.folder} than in "
            f"{candidate.folder} ({examples}). A paired comparison needs the same {column} on both sides: {remedy}."
        )


def _is_comparable(baseline: ModelTable, candidate: ModelTable, metric: str) -> bool:
    """Return true unless the tables record different rewards, versions or weights for the two models."""
    left, right = baseline.origins[metric], candidate.origins[metric]
    return None in (left.reward, right.reward) or left == right


def _unpaired(table: ModelTable, other: ModelTable) -> list[LeftOut]:
    """Return the usable rows of `table` that are missing in `other` (rows that failed there are listed there)."""
    named = {row.candidate_id for row in other.left_out}
    missing = table.rows.index.difference(other.rows.index)
    return [LeftOut(key, other.model, "missing: the other model has it") for key in missing if key not in named]


def _column_notes(baseline: ModelTable, candidate: ModelTable) -> list[str]:
    notes = []
    for table, other in ((baseline, candidate), (candidate, baseline)):
        missing = [name for name in other.higher_is_better if name not in table.higher_is_better]
        if missing:
            notes.append(f"not compared, because {table.model} does not have them: {', '.join(missing)}")
    return notes


def _origin_notes(baseline: ModelTable, candidate: ModelTable, metrics: Sequence[str]) -> list[str]:
    notes = []
    for name in metrics:
        left, right = (
            f"{o.reward} {o.version or ''} ({o.weights or 'no weights'})"
            for o in (baseline.origins[name], candidate.origins[name])
        )
        notes.append(f"not compared, because different judges scored it: {name}, by {left} and by {right}")
    return notes


def _seed_notes(baseline: ModelTable, candidate: ModelTable, common: pd.Index) -> list[str]:
    known = [table.rows.loc[common, "seed"].notna() for table in (baseline, candidate)]
    if not (count := int((known[0] & known[1]).sum())):
        return ["no seeds are known on one or both sides: samples are paired only by their prompts"]
    if count < len(common):
        return [f"{len(common) - count} samples without a seed on one or both sides are paired only by their prompts"]
    return []


def _duration_notes(baseline: ModelTable, candidate: ModelTable) -> list[str]:
    """Return a note if clip lengths differ, because desync is not comparable between lengths."""
    durations = pd.concat([baseline.rows["duration_s"], candidate.rows["duration_s"]]).dropna().astype(np.float64)
    if durations.empty or durations.max() - durations.min() <= _DURATION_TOLERANCE_S:
        return []
    return [
        f"clip lengths differ ({durations.min():.2f} s to {durations.max():.2f} s): "
        "desync is not comparable between lengths"
    ]
