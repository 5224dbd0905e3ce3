"""The pairs that other ranking strategies would choose, so that a person can look at where the strategies differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from core.schema import CANDIDATES, SCORES, read_table
from pipeline.rank.pairing import PairRules, Strategy, rank_pairs

COMPARED: tuple[Strategy, ...] = ("modality_micro", "modality_macro", "agnostic")  # one winner for all modalities


def choices_of_others(output_dir: Path, ranking: dict[str, Any]) -> dict[str, set[str]]:
    """Rank the run's scores by every strategy except its own; return each one's pairs as `<winner>><loser>` ids.

    The run's ground-truth policy and pairs per prompt are used. Its margins and gates are not, because their units
    belong to its strategy. The result is empty if the run has no candidates or scores table.

    Args:
        ranking: content of `pairs/ranking.json`.

    Raises:
        ValueError: a table cannot be read or lacks a metric.
    """
    paths = output_dir / "candidates" / "candidates.parquet", output_dir / "scores" / "scores.parquet"
    if not all(path.is_file() for path in paths):
        return {}
    table = _scored_candidates(*paths)
    rules = PairRules(pairs_per_prompt=ranking.get("rules", {}).get("pairs_per_prompt", 1))
    policy = ranking.get("ground_truth", "any")
    return {
        strategy: set(rank_pairs(table, strategy, policy, (), rules=rules).pairs["pair_id"])
        for strategy in COMPARED
        if strategy != ranking.get("strategy")
    }


def _scored_candidates(candidates_path: Path, scores_path: Path) -> pa.Table:
    candidates = read_table(candidates_path, CANDIDATES, "python -m pipeline.sample")
    scores = read_table(scores_path, SCORES, "python -m pipeline.score").drop_columns(["error", "reasons"])
    wanted = ("candidate_id", "prompt_id", "index", "is_ground_truth")
    return candidates.select(wanted).join(scores, "candidate_id", join_type="left outer")
