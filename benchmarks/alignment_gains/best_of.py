"""The best of four samples of the starting model: the gain that the rewards can see without any training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from benchmarks.alignment_gains.workshop import Workshop, overall_scores
from benchmarks.bounce_runs import EVALUATION_RUN_SEED, run_stages
from evaluation.compare.figures import ComparisonRow, compare_all
from evaluation.compare.model_table import read_model
from evaluation.compare.tables import read_pairs

# Candidates that stand for the first and the second sample of the baseline, which are among them.
SLOTS = ((0, 2, 3, 4), (1, 5, 6, 7))


def best_of(workshop: Workshop, baseline: Path) -> dict[str, ComparisonRow]:
    """Compare the best of four samples, twice per caption, with the baseline's two samples."""
    config = workshop.config
    folder = run_stages(
        workshop.prompts(config.captions, config.num_held_out, config.held_out_seed),
        config.model,
        workshop.root / "evaluation" / config.captions / "best_of_4",
        ["sample", "score"],
        config.num_workers,
        num_candidates=sum(map(len, SLOTS)),
        guidance_scale=config.guidance_scale,
        seed=EVALUATION_RUN_SEED,
    )
    pairs = read_pairs(baseline, folder)
    chosen = best_samples(folder).reindex(pairs.baseline.index)[list(pairs.baseline)]
    [comparison] = compare_all([replace(pairs, candidate=chosen)], num_bootstrap=10_000, seed=0)
    return {row.name: row for row in comparison.rows}


def best_samples(folder: Path) -> pd.DataFrame:
    """Return the scores of the best sample of each slot by the overall score, under the slot's candidate_id."""
    table = read_model(folder, "best of 4")
    scores = table.rows[list(table.higher_is_better)].astype(float)
    overall = overall_scores(scores, table.higher_is_better)
    prompts, numbers = zip(*(name.rsplit("/", 1) for name in scores.index), strict=True)
    slot_of = {str(number): slot[0] for slot in SLOTS for number in slot}
    slots = [f"{prompt}/{slot_of[number]}" for prompt, number in zip(prompts, numbers, strict=True)]
    best = overall.groupby(slots).idxmax()
    return scores.loc[best].set_axis(best.index)
