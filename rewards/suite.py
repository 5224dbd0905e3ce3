"""Scores files with any number of rewards: each clip is decoded once and given to all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from media import AVClip, MediaError, read_clip
from rewards.base import Prompt, Reward

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class ClipFile:
    """A clip to score. The sound is read from `audio_path` (lossless) where it is given, else from the video file."""

    candidate_id: str
    video_path: str | Path
    audio_path: str | Path | None
    prompt: Prompt


@dataclass(frozen=True)
class ScoreRow:
    """Scores of one clip, one entry per column of the suite; None means missing, and `reasons` says why."""

    candidate_id: str
    scores: dict[str, float | None]
    reasons: dict[str, str] = field(default_factory=dict)  # column -> why its score is None
    error: str | None = None  # set when something failed, not when a score is merely undefined


class RewardSuite:
    """Several rewards behind one call. Columns of different rewards must not overlap."""

    def __init__(self, rewards: Sequence[Reward]) -> None:
        owners: dict[str, str] = {}
        for reward in rewards:
            for column in reward.columns:
                if column in owners:
                    raise ValueError(
                        f"The rewards {owners[column]!r} and {reward.name!r} both yield the column {column!r}, and a "
                        "table has room for one. Choose one of the two rewards."
                    )
                owners[column] = reward.name
        self.rewards = tuple(rewards)

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(column for reward in self.rewards for column in reward.columns)

    @property
    def higher_is_better(self) -> dict[str, bool]:
        return {column: reward.higher_is_better[column] for reward in self.rewards for column in reward.columns}

    @property
    def versions(self) -> dict[str, str]:
        """Reward name -> version, which together with the candidate_id key a stored score."""
        return {reward.name: reward.version for reward in self.rewards}

    def score_files(self, rows: Sequence[ClipFile]) -> list[ScoreRow]:
        """One row per file, in order.

        A file that cannot be read, and a clip that a reward cannot score, give a row with `error` and null scores
        where they failed; the other clips are scored as if it were not there.
        """
        decoded: list[tuple[int, AVClip]] = []
        results = [_Result(row.candidate_id) for row in rows]
        for index, row in enumerate(rows):
            try:
                decoded.append((index, read_clip(row.video_path, audio_path=row.audio_path)))
            except (MediaError, OSError) as error:
                results[index].errors.append(str(error))
        for reward in self.rewards:
            batch = [(results[index], clip, rows[index].prompt) for index, clip in decoded]
            for (result, clip, _), outcome in zip(batch, _score_batch(reward, batch), strict=True):
                result.add(reward, clip, outcome)
        return [result.row(self.columns) for result in results]


@dataclass(eq=False)
class _Result:
    """A score row in the making."""

    candidate_id: str
    scores: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def add(self, reward: Reward, clip: AVClip, outcome: dict[str, float] | str) -> None:
        """Take the scores of one reward, or the message of its failure."""
        if isinstance(outcome, str):
            self._fail(reward, outcome)
            return
        infinite = [column for column, score in outcome.items() if math.isinf(score)]
        if infinite:
            self._fail(
                reward, f"reward {reward.name!r} gave an infinite {', '.join(infinite)} for {self.candidate_id!r}"
            )
            return
        for column, score in outcome.items():
            if math.isnan(score):
                self.reasons[column] = _why_undefined(reward, clip)
            else:
                self.scores[column] = score

    def _fail(self, reward: Reward, message: str) -> None:
        self.errors.append(message)
        self.reasons.update(dict.fromkeys(reward.columns, message))

    def row(self, columns: Sequence[str]) -> ScoreRow:
        error = "; ".join(self.errors) or None
        scores = {column: self.scores.get(column) for column in columns}
        reasons = {column: self.reasons.get(column) or str(error) for column in columns if scores[column] is None}
        return ScoreRow(self.candidate_id, scores, reasons, error)


def _score_batch(reward: Reward, batch: Sequence[tuple[_Result, AVClip, Prompt]]) -> list[dict[str, float] | str]:
    """Scores of each clip, or the message of its failure; a batch that fails is tried again clip by clip."""
    if not batch:
        return []
    # Boundary to code that is not ours, over input that is not ours: any exception must cost one clip, not the batch.
    try:
        return [*_call(reward, batch)]
    except Exception as error:  # noqa: BLE001
        if len(batch) == 1:
            message = f"reward {reward.name!r} failed on {batch[0][0].candidate_id!r}: {type(error).__name__}: {error}"
            return [message]
    return [outcome for item in batch for outcome in _score_batch(reward, [item])]


def _call(reward: Reward, batch: Sequence[tuple[_Result, AVClip, Prompt]]) -> list[dict[str, float]]:
    """Call the reward and check that it keeps its contract: its columns, one value per clip."""
    scores = reward.score([clip for _, clip, _ in batch], [prompt for _, _, prompt in batch])
    if set(scores) != set(reward.columns):
        raise ValueError(f"it returned the columns {sorted(scores)}, but declares {sorted(reward.columns)}")
    for column, values in scores.items():
        if tuple(values.shape) != (len(batch),):
            raise ValueError(f"its {column} has shape {tuple(values.shape)} for {len(batch)} clips; return (B,)")
    lists = {column: values.float().tolist() for column, values in scores.items()}
    return [{column: values[index] for column, values in lists.items()} for index in range(len(batch))]


def _why_undefined(reward: Reward, clip: AVClip) -> str:
    silent = "audio" in reward.needs and not clip.has_audio
    return f"not defined by reward {reward.name!r} for this clip{': it has no audio track' if silent else ''}"
