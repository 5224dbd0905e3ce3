"""Winner and loser of every prompt, from a table of scored candidates. Vectorised: no Python loop over prompts.

Scores are standardised (or ranked) over the whole table, averaged within each modality, compared within each prompt.
Published rule: JavisDiT++ (arXiv 2602.19163), audio-video DPO; checked against the pairs of its released tool.

Ties: an equal score is no better score. Equal margins go to the winner that comes first by index (ground truth is -1),
then to the loser that does; the report counts such prompts.
Nulls: a candidate with a missing score takes no part, neither in pairs nor in the statistics, and is counted; a null in
a column that a gate names does not pass it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline.rank.choice import REASONS, Choice, Roles, choose, choose_inconsistently
from pipeline.rank.input import RANKED_METRICS, Candidates, read_candidates
from pipeline.rank.pairs_table import CARRIED_COLUMNS, pairs_frame
from pipeline.rank.rules import MODALITIES, Demand, PairRules, check_rules, parse_gate
from pipeline.rank.scores import Scale, modality_scores, rank_scores
from pipeline.rank.statistics import build_report
from rewards.metrics import METRIC_COLUMNS

__all__ = ["RANKED_METRICS", "GroundTruthPolicy", "PairRules", "RankResult", "Strategy", "rank_pairs"]

Strategy = Literal["modality_micro", "modality_macro", "agnostic", "inconsistent"]
GroundTruthPolicy = Literal["never", "winner_only", "any"]


@dataclass(frozen=True, eq=False)
class RankResult:
    """What ranking made of a table.

    pairs: one row per pair, sorted by prompt_id and, within a prompt, by falling margin, in the columns of
        `core.schema.pairs_schema` as far as the table had them. `pair_id` is both candidate_ids with ">" between.
    report: what ranking.json holds: counts, yield, attrition (reason -> number of prompts), win rates, correlation and
        conflict of metrics, distributions, standardisation statistics. See `pipeline.rank.statistics`.
    attrition: prompt_id and reason of every prompt without a pair.
    """

    pairs: pd.DataFrame
    report: dict[str, Any]
    attrition: pd.DataFrame


def rank_pairs(
    table: pa.Table | pd.DataFrame,
    strategy: Strategy = "modality_micro",
    ground_truth: GroundTruthPolicy = "any",
    metrics: Sequence[str] = METRIC_COLUMNS,
    *,
    rules: PairRules | None = None,
    statistics: Mapping[str, Mapping[str, float]] | None = None,
) -> RankResult:
    """Find each prompt's pairs.

    Args:
        table: one row per candidate, in any order: candidate_id, prompt_id, index, is_ground_truth and the metrics of
            MODALITY_METRICS; prompt, paths, seed and geometry are carried over where present.
        strategy: what is compared, and when a winner is one.
            modality_micro: mean of standardised metrics per modality; the winner must be strictly better in all three,
                and the largest summed margin wins (published).
            modality_macro: the same, with the mean of ranks over the table.
            agnostic: the sum of the three micro scores; best against worst.
            inconsistent: the best and worst per modality, chosen separately for picture and sound (the published
                failure case). Where they are different candidates, a side joins both ids with "+", has the picture of
                the one and the sound of the other, and no latents, seed or audio-video score.
        ground_truth: whether it may be in a pair. It is in the statistics in any case.
        metrics: further columns to carry over to the pairs, where the table has them.
        rules: least margins, gates, and pairs per prompt; by default one pair, and no more than the strategy asks.
        statistics: those of an earlier report (`report["statistics"]`), in place of this table's own, so that margins
            and gates mean the same in both.

    Raises:
        ValueError: a column is missing, a score is infinite, a candidate comes twice, or settings do not go together.
    """
    rules = rules or PairRules()
    _check_choice("strategy", strategy, get_args(Strategy))
    _check_choice("ground_truth", ground_truth, get_args(GroundTruthPolicy))
    check_rules(rules, strategy, statistics is not None)
    gates = [parse_gate(text) for text in rules.winner_gates]
    candidates = read_candidates(table, [*CARRIED_COLUMNS, *metrics, *(gate.column for gate in gates)])
    own_scale = Scale.of(candidates)
    scale = own_scale if statistics is None else Scale.from_dict(statistics)
    eligible = candidates.scored & ~candidates.is_ground_truth if ground_truth == "never" else candidates.scored
    standardised = modality_scores(candidates, scale)
    scores = rank_scores(candidates, eligible) if strategy == "modality_macro" else standardised
    roles = Roles(eligible, _may_win(candidates, scores, rules), ~candidates.is_ground_truth | (ground_truth == "any"))
    if strategy == "inconsistent":
        choice = choose_inconsistently(candidates, scores, roles, rules.pairs_per_prompt)
    else:
        choice = choose(candidates, scores, roles, Demand.of(rules, strategy), rules.pairs_per_prompt)
    pairs = _pairs(candidates, scores, choice, metrics)
    attrition = _attrition(candidates, choice)
    report = {"strategy": strategy, "ground_truth": ground_truth, "rules": rules.to_dict()}
    report |= build_report(candidates, scale, standardised, choice, pairs, attrition)
    report["statistics"] = scale.to_dict()
    if statistics is not None:
        report["own_statistics"] = own_scale.to_dict()
    return RankResult(pairs, report, attrition)


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, but must be one of {', '.join(choices)}.")


def _may_win(candidates: Candidates, scores: np.ndarray, rules: PairRules) -> np.ndarray:
    """(N,) what passes all gates."""
    passing = np.ones(len(candidates.scored), bool)
    for gate in map(parse_gate, rules.winner_gates):
        modality = gate.column.removesuffix("_score")
        if gate.column.endswith("_score") and modality in MODALITIES:
            values = scores[MODALITIES.index(modality)]
        elif candidates.is_number(gate.column):
            values = candidates.column(gate.column)
        else:
            raise ValueError(
                f"winner_gates names {gate.column!r}, but the table to rank has no such column of numbers. Name a "
                f"metric ({', '.join(METRIC_COLUMNS)}), another column of numbers, or "
                f"{', '.join(f'{name}_score' for name in MODALITIES)}."
            )
        passing &= gate.passes(values)
    return passing


def _pairs(candidates: Candidates, scores: np.ndarray, choice: Choice, metrics: Sequence[str]) -> pd.DataFrame:
    prompts, places = np.nonzero(choice.found.T)
    winners, losers = choice.winners[places, prompts], choice.losers[places, prompts]
    return pairs_frame(candidates, scores, prompts, winners, losers, metrics)


def _attrition(candidates: Candidates, choice: Choice) -> pd.DataFrame:
    prompts = np.flatnonzero(choice.reasons > 0)
    reasons = pa.DictionaryArray.from_arrays(pa.array(choice.reasons[prompts]), pa.array(REASONS))
    columns = {"prompt_id": candidates.prompt_ids.take(pa.array(prompts)), "reason": reasons.cast(pa.string())}
    return pa.table(columns).to_pandas()
