"""Groups of scored candidates, one group per prompt, read from the tables of a `pipeline.run` folder.

Imports neither torch nor datasets.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from core.lineage import Lineage, PreferenceTraining, RewardUse
from core.schema import CANDIDATES, SCORES, read_table
from core.score_origin import origin_of
from dpo.data.pairs import GEOMETRY
from dpo.data.schema import GROUP_COLUMNS, REWARDS_NAME
from rewards.metrics import HIGHER_IS_BETTER, MODALITY_METRICS

LEAST_WITH_GROUND_TRUTH = 4
COMMON_SIZE = 8  # published groups have 8 (OmniNFT) or 24 candidates (DiffusionNFT)
ORIGIN = ("model", "guidance_scale", "num_inference_steps")  # settings of sampling that the dataset records
_TAKEN = (
    *("candidate_id", "prompt_id", "prompt", "is_ground_truth", "seed"),
    *("video_path", "audio_path", "latents_path", *GEOMETRY),
)

CandidateRow = dict[str, Any]  # the columns above, ORIGIN and the rewards; None where a value is missing


@dataclass(frozen=True)
class RewardColumn:
    """A column of scores.

    Attributes:
        modality: "video", "audio" or "audio_video", as in ranking; None for a metric that ranking does not use.
    """

    higher_is_better: bool
    modality: str | None


@dataclass(frozen=True)
class Groups:
    """Candidates by prompt, in the order of the table.

    Attributes:
        groups: the candidates of each prompt that has at least two.
        rewards: column of the scores -> its direction and modality.
        lineage: the rewards that made the scores.
        num_failed: candidates that sampling could not make.
        num_alone: prompts that are left out because they have a single candidate.
    """

    groups: list[list[CandidateRow]]
    rewards: dict[str, RewardColumn]
    lineage: Lineage
    num_failed: int
    num_alone: int

    def fingerprint(self) -> str:
        """Return sixteen hex digits that change with any value of a candidate or a reward."""
        digest = hashlib.blake2b(digest_size=8)
        digest.update(json.dumps({name: asdict(reward) for name, reward in self.rewards.items()}).encode())
        for row in (row for group in self.groups for row in group):
            digest.update(json.dumps(row, sort_keys=True).encode())
        return digest.hexdigest()


def read_groups(folder: Path, ground_truth: bool = False) -> Groups:
    """Read the candidates and their scores from the folder of a `pipeline.run`.

    Args:
        ground_truth: take real clips as candidates. The theory of DiffusionNFT (arXiv 2509.16117) has no place for
            clips that the model did not sample, and they take most of a group's positive advantage.

    Raises:
        ValueError: a table is missing, no prompt has two candidates, a candidate has no row of scores, there is no
            reward or one without a direction, or ground truth is in a group under four.
    """
    candidates = read_table(folder / "candidates" / "candidates.parquet", CANDIDATES, "python -m pipeline.sample")
    scores = read_table(folder / "scores" / "scores.parquet", SCORES, "python -m pipeline.score")
    rewards = _reward_columns(scores, folder)
    known = {row["candidate_id"]: row for row in scores.select(["candidate_id", *rewards]).to_pylist()}
    origin = _origin(candidates.schema)
    groups: dict[str, list[CandidateRow]] = {}
    failed = 0
    for row in candidates.select([*_TAKEN, "error"]).to_pylist():
        if row.pop("error") is not None:
            failed += 1
        elif ground_truth or not row["is_ground_truth"]:
            group = groups.setdefault(row["prompt_id"], [])
            group.append(_scored(row, known, folder) | (dict.fromkeys(ORIGIN) if row["is_ground_truth"] else origin))
    kept = [group for group in groups.values() if len(group) > 1]
    _check_groups(kept, len(groups), folder)
    return Groups(kept, rewards, _lineage(scores.schema, rewards), failed, len(groups) - len(kept))


def read_rewards(folder: Path) -> dict[str, RewardColumn]:
    """Read the rewards of a training dataset of groups; empty without a record of them."""
    path = folder / REWARDS_NAME
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {name: RewardColumn(**values) for name, values in content.items()}


def using(lineage: Lineage, columns: Collection[str]) -> Lineage:
    """Return a lineage with those metrics of its rewards that are in `columns`."""
    trainings = []
    for training in lineage.trainings:
        kept = [replace(use, metrics=tuple(one for one in use.metrics if one in columns)) for use in training.rewards]
        trainings.append(replace(training, rewards=tuple(use for use in kept if use.metrics)))
    return replace(lineage, trainings=tuple(trainings))


def small_groups(groups: Iterable[Sequence[CandidateRow]]) -> list[str]:
    """Return a warning where groups have fewer than the usual 8 candidates, else nothing."""
    small = [(group[0]["prompt_id"], len(group)) for group in groups if len(group) < COMMON_SIZE]
    if not small:
        return []
    names = ", ".join(f"{prompt_id!r} ({size})" for prompt_id, size in small[:3])
    more = f" and {len(small) - 3} more" if len(small) > 3 else ""
    return [
        f"warning: {len(small)} groups have fewer than {COMMON_SIZE} candidates, so that their mean and spread are "
        f"uncertain: {names}{more}"
    ]


def _reward_columns(scores: pa.Table, folder: Path) -> dict[str, RewardColumn]:
    modality_of = {metric: name for name, metrics in MODALITY_METRICS.items() for metric in metrics}
    rewards = {}
    for field in scores.schema:
        if field.name in SCORES.names or not _is_number(field.type):
            continue
        stated = (field.metadata or {}).get(b"higher_is_better")
        better = HIGHER_IS_BETTER.get(field.name) if stated is None else stated == b"true"
        if better is None or field.name in GROUP_COLUMNS:
            problem = "has no direction" if better is None else "has the name of another column of the dataset"
            raise ValueError(
                f"{folder / 'scores'}: column {field.name!r} {problem}: score with `python -m pipeline.score`, which "
                "records whether higher is better, or rename or drop the column."
            )
        rewards[field.name] = RewardColumn(better, modality_of.get(field.name))
    if not rewards:
        raise ValueError(f"{folder / 'scores'} has no column of scores: run `python -m pipeline.score` with rewards.")
    return rewards


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _origin(schema: pa.Schema) -> CandidateRow:
    """Return the settings of sampling in a table's metadata; None for what it does not record."""
    settings = json.loads((schema.metadata or {}).get(b"avdpo.settings", b"{}")) or {}
    return {name: settings.get(name) for name in ORIGIN}


def _scored(row: CandidateRow, known: Mapping[str, CandidateRow], folder: Path) -> CandidateRow:
    scores = known.get(row["candidate_id"])
    if scores is None:
        raise ValueError(
            f"{folder / 'scores'} has no row of candidate {row['candidate_id']!r}: its scores are older than the "
            "candidates. Run `python -m pipeline.score` again."
        )
    return row | {name: value for name, value in scores.items() if name != "candidate_id"}


def _check_groups(groups: Sequence[Sequence[CandidateRow]], num_prompts: int, folder: Path) -> None:
    if not groups:
        raise ValueError(
            f"{folder} has {num_prompts} prompts with candidates, none of them with two, so nothing can be compared: "
            "sample with a larger --num_candidates."
        )
    for group in groups:
        if len(group) < LEAST_WITH_GROUND_TRUTH and any(row["is_ground_truth"] for row in group):
            raise ValueError(
                f"ground_truth is set, but the group of {group[0]['prompt_id']!r} has {len(group)} candidates, and the "
                f"real clip would take most of its positive advantage: sample at least {LEAST_WITH_GROUND_TRUTH - 1} "
                "candidates per prompt, or leave ground_truth out."
            )


def _lineage(scores: pa.Schema, rewards: Iterable[str]) -> Lineage:
    uses: dict[tuple[str | None, str | None], list[str]] = {}
    for column in rewards:
        origin = origin_of(scores, column)
        uses.setdefault((origin.reward, origin.version), []).append(column)
    listed = tuple(RewardUse(name, version, tuple(columns)) for (name, version), columns in uses.items())
    return Lineage((PreferenceTraining("rewards", listed),))
