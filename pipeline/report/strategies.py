"""Which pairs of a run other ranking strategies would choose too, so that a person can look at where they differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from core.schema import CANDIDATES, SCORES, read_table
from pipeline.rank.pairing import PairRules, Strategy, rank_pairs

COMPARED: tuple[Strategy, ...] = ("modality_micro", "modality_macro", "agnostic")  # one winner for all modalities


def choices_of_others(output_dir: Path, ranking: dict[str, Any]) -> dict[str, set[str]]:
    """The pairs, as `<winner>><loser>` candidate ids, that each strategy but the run's own makes of the run's scores.

    They follow the run's ground-truth policy and pairs per prompt, and none of its further demands, whose units are
    those of its strategy. Empty where the run has no candidates and scores tables.

    Args:
        ranking: content of `pairs/ranking.json`.

    Raises:
        ValueError: a table cannot be read, or lacks a metric.
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
