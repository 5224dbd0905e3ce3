"""Winner and loser of every prompt, from a table of scored candidates. Vectorised: no Python loop over prompts.

Scores are standardised (or ranked) over the whole table, averaged within each modality, compared within each prompt.
Published rule: JavisDiT++ (arXiv 2602.19163), audio-video DPO; checked against the pairs of its released tool.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import pyarrow as pa

from rewards.metrics import HIGHER_IS_BETTER, METRIC_COLUMNS, MODALITY_METRICS

Strategy = Literal["modality_micro", "modality_macro", "agnostic", "inconsistent"]
GroundTruthPolicy = Literal["never", "winner_only", "any"]

RANKED_METRICS = tuple(metric for metrics in MODALITY_METRICS.values() for metric in metrics)
MODALITIES = tuple(MODALITY_METRICS)
REWARD_OF_METRIC = {
    **dict.fromkeys(("visual_quality", "motion_quality"), "videoalign"),
    "audio_quality": "audiobox",
    **dict.fromkeys(("ib_tv", "ib_ta", "ib_av"), "imagebind"),
    "desync": "synchformer",
}

# Why a prompt gave no pair, as a report words it; the first that applies.
TOO_FEW = "fewer than two candidates with all scores"
GROUND_TRUTH_LOST = "the only winner beats ground truth, which may not lose"
TIED = "the best candidates are tied"
DISAGREE = "no candidate is better in every modality"

_SIDE_COLUMNS = ("candidate_id", "video_path", "audio_path", "latents_path", "is_ground_truth", "seed")


@dataclass(frozen=True, eq=False)
class RankResult:
    """What ranking made of a table.

    pairs: one row per prompt that gave a pair, sorted by prompt_id, in the columns of `pipeline.schema.pairs_schema` as
        far as the table had them.
    report: counts, yield, attrition (reason -> number of prompts), ground-truth win rates, standardisation statistics.
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
) -> RankResult:
    """Find each prompt's pair.

    Args:
        table: one row per candidate, in any order: candidate_id, prompt_id, index, is_ground_truth and the metrics of
            MODALITY_METRICS; paths, seed and geometry are carried over where present. A candidate with a missing score
            takes no part (nor in the statistics), and is counted.
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

    Ties go to the first candidate by index, ground truth being index -1.

    Raises:
        ValueError: a column is missing, a score is infinite, or a candidate comes twice.
    """
    _check_choice("strategy", strategy, get_args(Strategy))
    _check_choice("ground_truth", ground_truth, get_args(GroundTruthPolicy))
    frame = table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get) if isinstance(table, pa.Table) else table
    _check_columns(frame)
    frame, prompts, codes = _sorted(frame)

    values = frame[list(RANKED_METRICS)].to_numpy(np.float64, na_value=np.nan)  # (N, metrics)
    _check_finite(frame, values)
    scored = ~np.isnan(values).any(axis=1)
    is_ground_truth = frame["is_ground_truth"].to_numpy(bool)
    eligible = scored & ~is_ground_truth if ground_truth == "never" else scored
    signed = values * [1.0 if HIGHER_IS_BETTER[metric] else -1.0 for metric in RANKED_METRICS]
    standardised, statistics = _standardise(signed, scored)
    basis = _table_ranks(signed, eligible) if strategy == "modality_macro" else standardised
    scores = _modality_scores(basis)  # (N, modalities)

    grid = _Grid.build(codes, len(prompts), scores, eligible, may_lose=~is_ground_truth | (ground_truth == "any"))
    winners, losers, found = _choose(grid, strategy)  # (P, 2): the candidate for picture and the one for sound
    carried = [metric for metric in metrics if metric in frame]
    pairs = _pairs_frame(frame, scores, prompts[found], (winners[found], losers[found]), carried)
    reasons = _reasons(grid, found)
    attrition = pd.DataFrame({"prompt_id": prompts[~found], "reason": reasons[~found]})
    report = {
        "strategy": strategy,
        "ground_truth": ground_truth,
        "num_prompts": len(prompts),
        "num_pairs": len(pairs),
        "yield": len(pairs) / len(prompts) if len(prompts) else 0.0,
        "attrition": {str(reason): int(count) for reason, count in attrition["reason"].value_counts().items()},
        "candidates": _candidate_counts(frame, values, scored),
        "ground_truth_wins": _ground_truth_wins(
            _Grid.build(codes, len(prompts), _modality_scores(standardised), scored, scored), is_ground_truth, pairs
        ),
        "statistics": statistics,
    }
    return RankResult(pairs, report, attrition)


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, but must be one of {', '.join(choices)}.")


def _check_columns(frame: pd.DataFrame) -> None:
    for column in ("candidate_id", "prompt_id", "index", "is_ground_truth"):
        if column not in frame:
            raise ValueError(
                f"The table to rank has no column {column!r} (it has: {', '.join(map(str, frame))}). Add it."
            )
    missing = [metric for metric in RANKED_METRICS if metric not in frame]
    if missing:
        rewards = dict.fromkeys(REWARD_OF_METRIC[metric] for metric in missing)
        raise ValueError(
            f"The table to rank lacks the metric {', '.join(missing)}, and every candidate needs one score of each. "
            f"Score with the reward {' and '.join(rewards)} (or with verifiable, which yields all of them): "
            f"python -m pipeline.score --rewards {' '.join(rewards)}"
        )


def _sorted(frame: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Rows by prompt_id and index (sums then do not depend on row order), prompt_ids (P,), each row's prompt (N,)."""
    codes, prompts = pd.factorize(frame["prompt_id"].to_numpy(object), sort=True)
    indices = frame["index"].to_numpy(np.int64)
    order = np.lexsort((indices, codes))
    codes, indices = codes[order], indices[order]
    twice = np.flatnonzero((np.diff(codes) == 0) & (np.diff(indices) == 0))
    frame = frame.iloc[order].reset_index(drop=True)
    if len(twice):
        raise ValueError(
            f"Candidate {frame['candidate_id'].iloc[twice[0]]!r} stands in the table to rank more than once. "
            "Keep one row per candidate."
        )
    return frame, prompts, codes


def _check_finite(frame: pd.DataFrame, values: np.ndarray) -> None:
    for row, column in np.argwhere(np.isinf(values))[:1]:
        name = frame["candidate_id"].iloc[row]
        raise ValueError(f"{RANKED_METRICS[column]} of candidate {name!r} is infinite. Leave a missing score empty.")


def _standardise(signed: np.ndarray, scored: np.ndarray) -> tuple[np.ndarray, dict[str, dict[str, float]]]:
    """Each metric minus its mean, over its sample deviation; a metric that never varies says nothing and becomes 0."""
    used = signed[scored]
    mean = used.mean(axis=0) if len(used) else np.zeros(signed.shape[1])
    std = used.std(axis=0, ddof=1) if len(used) > 1 else np.zeros(signed.shape[1])
    varies = np.ptp(used, axis=0) > 0 if len(used) else np.zeros(signed.shape[1], bool)
    standardised = np.where(varies, (signed - mean) / np.where(varies, std, 1.0), 0.0)
    statistics = {
        metric: {
            "mean": float(mean[k] if HIGHER_IS_BETTER[metric] else -mean[k]),
            "std": float(std[k]),
            "count": len(used),
        }
        for k, metric in enumerate(RANKED_METRICS)
    }
    return standardised, statistics


def _table_ranks(signed: np.ndarray, eligible: np.ndarray) -> np.ndarray:
    """Rank of each value among the candidates that may be paired, 1 = worst; equal values share their mean rank."""
    return pd.DataFrame(np.where(eligible[:, None], signed, np.nan)).rank(method="average").to_numpy()


def _modality_scores(basis: np.ndarray) -> np.ndarray:
    groups = [[RANKED_METRICS.index(metric) for metric in metrics] for metrics in MODALITY_METRICS.values()]
    return np.stack([basis[:, group].mean(axis=1) for group in groups], axis=1)


@dataclass(frozen=True, eq=False)
class _Grid:
    """Candidates by prompt and place (P, K), K being the most candidates of any prompt, in order of index."""

    rows: np.ndarray  # (P, K) row of the sorted table, -1 where a prompt has fewer
    scores: np.ndarray  # (P, K, modalities)
    eligible: np.ndarray  # (P, K)
    may_lose: np.ndarray  # (P, K)

    @staticmethod
    def build(
        codes: np.ndarray, num_prompts: int, scores: np.ndarray, eligible: np.ndarray, may_lose: np.ndarray
    ) -> _Grid:
        counts = np.bincount(codes, minlength=num_prompts)
        places = np.arange(len(codes)) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = np.full((num_prompts, counts.max(initial=0)), -1)
        rows[codes, places] = np.arange(len(codes))
        filled = rows >= 0
        if not len(codes):
            return _Grid(rows, np.zeros((*rows.shape, scores.shape[1])), filled, filled)
        return _Grid(rows, scores[rows], eligible[rows] & filled, may_lose[rows] & filled)


def _choose(grid: _Grid, strategy: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows (P, 2) of winner and loser for picture and sound, and which prompts (P,) have a pair."""
    if strategy == "inconsistent":
        choices = [_best_pair(grid, grid.scores[:, :, [MODALITIES.index(name)]]) for name in ("video", "audio")]
    elif strategy == "agnostic":
        choices = [_best_pair(grid, grid.scores.sum(axis=2, keepdims=True))] * 2
    else:
        choices = [_best_pair(grid, grid.scores)] * 2
    winners, losers = (np.stack([choice[side] for choice in choices], axis=1) for side in (0, 1))
    return winners, losers, np.all(winners >= 0, axis=1)


def _best_pair(grid: _Grid, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per prompt, rows of the two candidates with the largest summed margin, one strictly better throughout; else -1.

    scores: (P, K, M). The loop is over places of a prompt, which are few.
    """
    num_prompts, num_places = grid.rows.shape
    margin, winner, loser = np.full(num_prompts, -np.inf), np.full(num_prompts, -1), np.full(num_prompts, -1)
    for i, j in _place_pairs(num_places):
        difference = scores[:, i] - scores[:, j]
        allowed = grid.eligible[:, i] & grid.eligible[:, j] & grid.may_lose[:, j]
        total = difference.sum(axis=1)
        better = allowed & (difference > 0).all(axis=1) & (total > margin)
        margin[better] = total[better]
        winner[better], loser[better] = grid.rows[better, i], grid.rows[better, j]
    return winner, loser


def _place_pairs(num_places: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(num_places) for j in range(num_places) if i != j]


def _reasons(grid: _Grid, found: np.ndarray) -> np.ndarray:
    """Why each prompt (P,) without a pair has none."""
    forbidden, tied = np.zeros(len(found), bool), np.zeros(len(found), bool)
    for i, j in _place_pairs(grid.rows.shape[1]):
        difference = grid.scores[:, i] - grid.scores[:, j]
        both = grid.eligible[:, i] & grid.eligible[:, j]
        forbidden |= both & ~grid.may_lose[:, j] & (difference > 0).all(axis=1)
        tied |= both & (difference >= 0).all(axis=1)
    too_few = grid.eligible.sum(axis=1) < 2
    return np.select([found, too_few, forbidden, tied], ["", TOO_FEW, GROUND_TRUTH_LOST, TIED], DISAGREE).astype(object)


def _pairs_frame(
    frame: pd.DataFrame,
    scores: np.ndarray,
    prompt_ids: np.ndarray,
    rows: tuple[np.ndarray, np.ndarray],
    metrics: list[str],
) -> pd.DataFrame:
    """rows: of winners and of losers (pairs, 2), for picture and sound."""
    winners, losers = rows
    columns: dict[str, Any] = {"prompt_id": prompt_ids}
    if "prompt" in frame:
        columns["prompt"] = frame["prompt"].take(winners[:, 0]).array
    side_scores = []
    for side, side_rows in (("chosen", winners), ("rejected", losers)):
        values, modality_scores = _side(frame, scores, side_rows, metrics)
        columns |= {f"{side}_{name}": column for name, column in values.items()}
        side_scores.append(modality_scores)
    margins = side_scores[0] - side_scores[1]  # (pairs, modalities)
    columns |= {f"margin_{name}": margins[:, k] for k, name in enumerate(MODALITIES)}
    columns["margin"] = np.nansum(margins, axis=1)
    return pd.DataFrame(columns | _geometry(frame, winners[:, 0], losers[:, 0]))


def _side(
    frame: pd.DataFrame, scores: np.ndarray, rows: np.ndarray, metrics: list[str]
) -> tuple[dict[str, Any], np.ndarray]:
    """Columns of one side, and its modality scores (pairs, modalities). rows: (pairs, 2), for picture and sound."""
    picture, sound = rows[:, 0], rows[:, 1]
    mixed = picture != sound
    source = {name: sound if name == "audio_path" or name in MODALITY_METRICS["audio"] else picture for name in frame}
    columns: dict[str, Any] = {
        name: frame[name].take(source[name]).array for name in (*_SIDE_COLUMNS, *metrics) if name in frame
    }
    modality_scores = scores[picture]
    modality_scores[:, MODALITIES.index("audio")] = scores[sound, MODALITIES.index("audio")]
    if mixed.any():
        modality_scores[mixed, MODALITIES.index("audio_video")] = np.nan
        ids = pd.Series(columns["candidate_id"])
        columns["candidate_id"] = ids.where(~mixed, ids + "+" + frame["candidate_id"].take(sound).array).array
        is_ground_truth = frame["is_ground_truth"].to_numpy(bool)
        columns["is_ground_truth"] = is_ground_truth[picture] | is_ground_truth[sound]
        for name in ("latents_path", "seed", *(name for name in metrics if name in MODALITY_METRICS["audio_video"])):
            if name in columns:
                columns[name] = pd.Series(columns[name]).mask(mixed).array
    columns |= {f"{name}_score": modality_scores[:, k] for k, name in enumerate(MODALITIES)}
    return columns, modality_scores


def _geometry(frame: pd.DataFrame, winners: np.ndarray, losers: np.ndarray) -> dict[str, Any]:
    """Size of the member with fewer pixels (the loser on a tie, as published), length of the shorter one."""
    columns: dict[str, Any] = {}
    if {"height", "width"} <= set(frame):
        pixels = (frame["height"] * frame["width"]).to_numpy(np.float64, na_value=np.nan)
        rows = np.where(pixels[winners] < pixels[losers], winners, losers)
        columns |= {name: frame[name].take(rows).array for name in ("height", "width")}
    if "num_frames" in frame:
        frames = frame["num_frames"].to_numpy(np.float64, na_value=np.nan)
        rows = np.where(frames[winners] < frames[losers], winners, losers)
        names = [name for name in ("num_frames", "fps", "sample_rate", "duration_s") if name in frame]
        columns |= {name: frame[name].take(rows).array for name in names}
    return columns


def _candidate_counts(frame: pd.DataFrame, values: np.ndarray, scored: np.ndarray) -> dict[str, Any]:
    return {
        "total": len(frame),
        "ground_truth": int(frame["is_ground_truth"].sum()),
        "left_out_for_missing_scores": int((~scored).sum()),
        "missing_scores": {name: int(np.isnan(values[:, k]).sum()) for k, name in enumerate(RANKED_METRICS)},
    }


def _ground_truth_wins(grid: _Grid, is_ground_truth: np.ndarray, pairs: pd.DataFrame) -> dict[str, Any]:
    """How often ground truth beats a generated candidate of its prompt, per modality and in all; a tie counts half."""
    result: dict[str, Any] = {"comparisons": 0, "win_rate": {}}
    place_is_truth = is_ground_truth[grid.rows] & (grid.rows >= 0) if len(is_ground_truth) else grid.rows >= 0
    differences = [
        grid.scores[mask, i] - grid.scores[mask, j]
        for i, j in _place_pairs(grid.rows.shape[1])
        if (mask := place_is_truth[:, i] & ~place_is_truth[:, j] & grid.eligible[:, i] & grid.eligible[:, j]).any()
    ]
    if differences:
        difference = np.concatenate(differences)  # (comparisons, modalities)
        rates = ((difference > 0) + 0.5 * (difference == 0)).mean(axis=0)
        result["comparisons"] = len(difference)
        result["win_rate"] = {name: float(rate) for name, rate in zip(MODALITIES, rates, strict=True)}
        result["win_rate"]["all"] = float((difference > 0).all(axis=1).mean())
    for side in ("chosen", "rejected"):
        result[side] = int(pairs[f"{side}_is_ground_truth"].sum())
    return result
