"""Choice of the candidates that form a prompt's pairs, or the reason for none, for thousands of prompts at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.rank.input import Block, Candidates
from pipeline.rank.rules import MODALITIES, Demand

# Reasons why a prompt gave no pair, as reports print them; the first that applies is used.
TOO_FEW = "fewer than two candidates with all scores"
TIED = "the best candidates are tied"
DISAGREE = "no candidate is better in every modality"
GROUND_TRUTH_LOST = "the only winner beats ground truth, which may not lose"
GATED = "no winner passes the gates"
TOO_CLOSE = "no pair reaches the least margins"
REASONS = ("", TOO_FEW, TIED, DISAGREE, GROUND_TRUTH_LOST, GATED, TOO_CLOSE)

# Stages that a pair of candidates passes; each stage is a subset of the one before.
STAGES = ("compared", "one_is_better", "loser_may_lose", "winner_passes_gates", "reaches_margins")


@dataclass(frozen=True, eq=False)
class Roles:
    """Masks (N,) of the candidates that may be compared, may win and may lose."""

    eligible: np.ndarray
    may_win: np.ndarray
    may_lose: np.ndarray


@dataclass(frozen=True, eq=False)
class Choice:
    """The pairs of P prompts, up to k each, largest margin first. Rows index the sorted candidates."""

    winners: np.ndarray  # (k, P, 2) rows for picture and sound; -1 if there is no pair
    losers: np.ndarray  # (k, P, 2)
    reasons: np.ndarray  # (P,) index into REASONS
    num_tied: int  # prompts in which several pairs share the largest margin
    stages: dict[str, int]  # STAGES -> number of pairs of candidates

    @property
    def found(self) -> np.ndarray:
        """Mask (k, P) of the pairs that exist."""
        return np.all(self.winners >= 0, axis=2)


def choose(candidates: Candidates, scores: np.ndarray, roles: Roles, demand: Demand, num_pairs: int) -> Choice:
    """Choose the pairs that meet the demand with the largest summed margins. scores: (modalities compared, N).

    Of equal margins, the pair whose winner has the lowest index is chosen, then the one whose loser has.
    """
    num_prompts, most = len(candidates.counts), int(candidates.counts.max(initial=0))
    num_pairs = min(num_pairs, max(1, most * (most - 1) // 2))  # a prompt cannot have more
    winners, losers = np.full((2, num_pairs, num_prompts), -1)
    reasons, num_tied, stages = np.zeros(num_prompts, np.int8), 0, dict.fromkeys(STAGES, 0)
    for block in candidates.blocks():
        margins, reason, counts = _judge(block, scores, roles, demand)
        flat = margins.reshape(-1, len(block.prompts))  # (K * K, B)
        best, picked = _largest(flat, num_pairs)
        num_places = len(block.rows)
        for rows, places in ((winners, best // num_places), (losers, best % num_places)):
            rows[: len(best), block.prompts] = np.where(picked, np.take_along_axis(block.rows, places, 0), -1)
        num_tied += int((picked[0] & ((flat == flat.max(axis=0)).sum(axis=0) > 1)).sum())
        reasons[block.prompts] = reason
        stages = {name: stages[name] + counts[name] for name in STAGES}
    return Choice(np.stack([winners] * 2, axis=2), np.stack([losers] * 2, axis=2), reasons, num_tied, stages)


def choose_inconsistently(candidates: Candidates, scores: np.ndarray, roles: Roles, num_pairs: int) -> Choice:
    """Combine the picture of the best pair by video score and the sound of the best pair by audio score.

    This is the published failure case. The second pair of a prompt combines the second best of both, and so on.
    """
    demand = Demand(np.array([True]), np.array([-np.inf]), 0.0)
    rows = [[MODALITIES.index(name)] for name in ("video", "audio")]
    picture, sound = (choose(candidates, scores[row], roles, demand, num_pairs) for row in rows)
    winners, losers = (
        np.stack([getattr(picture, side)[:, :, 0], getattr(sound, side)[:, :, 0]], axis=2)
        for side in ("winners", "losers")
    )
    missing = (winners < 0).any(axis=2)
    winners[missing], losers[missing] = -1, -1
    reasons = np.where(picture.reasons > 0, picture.reasons, sound.reasons)
    return Choice(winners, losers, reasons, picture.num_tied + sound.num_tied, {})


def _largest(margins: np.ndarray, num_pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """Return indices (k, B) of the largest margins (pairs, B), first of equals first, and a mask of real pairs."""
    if num_pairs == 1:
        best = margins.argmax(axis=0)[None]
    else:
        best = np.argsort(-margins, axis=0, kind="stable")[:num_pairs]
    return best, np.take_along_axis(margins, best, 0) > -np.inf


def _judge(
    block: Block, scores: np.ndarray, roles: Roles, demand: Demand
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Return summed margins (K, K, B) of first over second (-inf if not a pair), reasons (B,) and STAGES' counts."""
    rows = block.rows
    score = scores[:, rows]  # (M, K, B)
    margin = score[:, :, None] - score[:, None]  # (M, K, K, B)
    total = margin.sum(axis=0)
    eligible = roles.eligible[rows]
    compared = eligible[:, None] & eligible & ~np.eye(len(rows), dtype=bool)[:, :, None]
    better = compared & (total > 0)
    level = compared & (total >= 0)
    for k, values in enumerate(margin):
        if demand.strict[k]:
            better &= values > 0
            level &= values >= 0
        elif -np.inf < demand.minimum[k] <= 0:
            better &= values >= demand.minimum[k]
            level &= values >= demand.minimum[k]
    allowed = better & roles.may_lose[rows]
    passing = allowed & roles.may_win[rows][:, None]
    valid = passing & (total >= demand.min_total)
    for least, values in zip(demand.minimum, margin, strict=True):
        if least > -np.inf:
            valid &= values >= least

    counts = [int(mask.sum()) for mask in (compared, better, allowed, passing, valid)]
    counts[0] = counts[0] // 2  # both orders were counted; at most one of them is better
    some = [mask.any(axis=(0, 1)) for mask in (better, allowed, passing, valid)]
    conditions = [some[3], eligible.sum(axis=0) < 2, ~some[0] & level.any(axis=(0, 1)), *(~mask for mask in some)]
    reasons = np.select(conditions, [0, 1, 2, 3, 4, 5, 6], 0)
    return np.where(valid, total, -np.inf), reasons, dict(zip(STAGES, counts, strict=True))
