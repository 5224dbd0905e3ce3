"""Scores files with any number of rewards: each clip is decoded once and given to all of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice

from core.devices import check_device, is_device_lost
from media import AVClip
from rewards.base import Prompt, Protocol, Reward
from rewards.decode import ClipFile, decode_ahead
from rewards.registry import check_distinct, expand_names, get_reward

__all__ = ["ClipFile", "RewardSuite", "ScoreRow"]


@dataclass(frozen=True)
class ScoreRow:
    """Scores of one clip, one entry per column of the suite; None means missing, and `reasons` says why."""

    candidate_id: str
    scores: dict[str, float | None]
    reasons: dict[str, str] = field(default_factory=dict)  # column -> why its score is None
    error: str | None = None  # set when something failed, not when a score is merely undefined


class RewardSuite:
    """Several rewards behind one call. Names and columns of different rewards must not overlap.

    Args:
        rewards: loaded rewards, each on the device it was loaded to.
        batch_size: clips that are scored at once; two such batches are held in memory.
        num_decoders: threads that decode the next batch while one is scored.
    """

    def __init__(self, rewards: Sequence[Reward], *, batch_size: int = 8, num_decoders: int = 2) -> None:
        check_distinct(rewards)
        for name, value in (("batch_size", batch_size), ("num_decoders", num_decoders)):
            if value < 1:
                raise ValueError(f"{name} is {value}, but must be at least 1.")
        self.rewards = tuple(rewards)
        self.batch_size = batch_size
        self.num_decoders = num_decoders

    @classmethod
    def load(
        cls,
        names: Sequence[str],
        *,
        weights: str | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        protocol: Protocol = "correct",
        batch_size: int = 8,
        num_decoders: int = 2,
    ) -> RewardSuite:
        """Rewards by name, groups and dotted paths included, on one device.

        Args:
            weights: given to the rewards that have weights: the folder that `model.fetch` filled, or "tiny".

        The others are as for `Reward.load` and for the suite itself. Raises ValueError as `get_reward` and `load` do,
        and for a device that is not there.
        """
        classes = [get_reward(name) for name in expand_names(names)]
        check_device(device)
        rewards = [
            reward.load(weights if reward.published else None, device=device, dtype=dtype, protocol=protocol)
            for reward in classes
        ]
        return cls(rewards, batch_size=batch_size, num_decoders=num_decoders)

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

    @property
    def needs(self) -> frozenset[str]:
        """What any of the rewards needs, of "video", "audio" and "text": the rest of a file is not decoded."""
        return frozenset().union(*(reward.needs for reward in self.rewards))

    def frames(self, num_frames: int, fps: float) -> frozenset[int] | None:
        """The frames of a clip that any of the rewards looks at; None for all."""
        chosen: set[int] = set()
        for reward in self.rewards:
            if "video" in reward.needs:
                indices = reward.frames(num_frames, fps)
                if indices is None:
                    return None
                chosen.update(indices)
        return frozenset(chosen)

    def score_files(self, files: Iterable[ClipFile]) -> list[ScoreRow]:
        """One row per file, in order.

        A file that cannot be read, and a clip that a reward cannot score, give a row with `error` and null scores
        where they failed; the other clips are scored as if it were not there. An error of the GPU itself is raised: no
        clip could be scored after it.
        """
        return list(self.iter_scores(files))

    def iter_scores(self, files: Iterable[ClipFile]) -> Iterator[ScoreRow]:
        """The rows of `score_files`, a batch at a time; `files` is read one batch ahead."""
        left = iter(files)
        batches = iter(lambda: list(islice(left, self.batch_size)), [])
        return chain.from_iterable(self.iter_batches(batches))

    def iter_batches(self, batches: Iterable[Sequence[ClipFile]]) -> Iterator[list[ScoreRow]]:
        """The rows of each batch, in order: for a caller who decides what is scored at once."""
        # map, unlike a loop, lets go of a batch once it is scored, while the one after the next is already decoded.
        return map(self._score, decode_ahead(batches, self.needs, self.num_decoders, self.frames))

    def _score(self, batch: Sequence[tuple[ClipFile, AVClip | str]]) -> list[ScoreRow]:
        results = [_Result(file.candidate_id) for file, _ in batch]
        readable = []
        for result, (file, clip) in zip(results, batch, strict=True):
            if isinstance(clip, str):
                result.errors.append(clip)
            else:
                readable.append((result, clip, file.prompt))
        for reward in self.rewards:
            for (result, clip, _), outcome in zip(readable, _score_batch(reward, readable), strict=True):
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
    except Exception as error:
        if is_device_lost(error):
            raise  # no clip's fault alone, and whatever came after would fail as well
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
