"""Pairing: winner and loser of every prompt from a table of scored candidates, without a Python loop over prompts.

Scores are standardised (or ranked) over the whole table, averaged within each modality, compared within each prompt.
The published rule is that of JavisDiT++ (arXiv 2602.19163), audio-video DPO; results were checked against the pairs of
its released tool.

Ties: an equal score is not a better score. Of equal margins, the pair whose winner has the lowest index is chosen
(ground truth has index -1), then the one whose loser has. The report counts such prompts.
Nulls: a candidate with a missing score is left out of pairs and statistics, and is counted. A null in a gate's column
fails the gate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline.rank.choice import REASONS, Choice, Roles, choose, choose_inconsistently
from pipeline.rank.input import RANKED_METRICS, Candidates, read_candidates
from pipeline.rank.pairs_table import CARRIED_COLUMNS, pairs_frame
from pipeline.rank.rules import MODALITIES, Demand, GroundTruthPolicy, PairRules, Strategy, check_rules, parse_gate
from pipeline.rank.scores import Scale, modality_scores, rank_scores
from pipeline.rank.statistics import build_report
from rewards.metrics import METRIC_COLUMNS

__all__ = ["RANKED_METRICS", "GroundTruthPolicy", "PairRules", "RankResult", "Strategy", "rank_pairs"]


@dataclass(frozen=True, eq=False)
class RankResult:
    """Result of ranking a table.

    pairs: one row per pair, sorted by prompt_id and, within a prompt, by falling margin. The columns are those of
        `core.schema.pairs_schema` that the table allows. `pair_id` is both candidate_ids, joined by ">".
    report: content of ranking.json: counts, yield, attrition (reason -> number of prompts), win rates, correlation and
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
    """Choose each prompt's pairs.

    Args:
        table: one row per candidate, in any order: candidate_id, prompt_id, index, is_ground_truth and the metrics of
            MODALITY_METRICS; prompt, paths, seed and geometry are carried over where present.
        strategy: the scores that are compared, and the condition for a winner.
            modality_micro: mean of standardised metrics per modality. The winner must be strictly better in all three;
                the pair with the largest summed margin is chosen (published).
            modality_macro: the same with the mean of ranks over the table.
            agnostic: the sum of the three micro scores; the best candidate against the worst.
            inconsistent: the best and worst per modality, chosen separately for picture and sound (the published
                failure case). If these are different candidates, a side joins both ids with "+". It has the picture of
                one and the sound of the other, and no latents, seed or audio-video score.
        ground_truth: whether ground truth may be in a pair. It is always part of the statistics.
        metrics: further columns to carry over to the pairs, if the table has them.
        rules: minimum margins, gates, and pairs per prompt; by default one pair under the strategy's own condition.
        statistics: statistics of an earlier report (`report["statistics"]`) that replace this table's own, so that
            margins and gates mean the same in both.

    Raises:
        ValueError: a column is missing, a score is infinite, a candidate occurs twice, or settings are incompatible.
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
    """Return a mask (N,) of the candidates that pass all gates."""
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
