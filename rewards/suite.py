"""The suite that scores files with several rewards: each clip is decoded once and given to all of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice

from core.devices import check_device
from rewards.base import Protocol, Reward
from rewards.batch import ClipOutcomes, combined_frames, combined_needs, measure_batches
from rewards.decode import ClipFile
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
        """Return a suite of rewards by name, group or dotted path, on one device.

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
        """The parts of a clip that any of the rewards needs, of "video", "audio" and "text"."""
        return combined_needs(self.rewards)

    def frames(self, num_frames: int, fps: float) -> frozenset[int] | None:
        """Return the frames of a clip that any of the rewards uses; None for all."""
        return combined_frames(self.rewards, num_frames, fps)

    def score_files(self, files: Iterable[ClipFile]) -> list[ScoreRow]:
        """Return one row per file, in order.

        A file that cannot be read, and a clip that a reward cannot score, give a row with `error` and null scores
        where they failed; the other clips are scored as if it were not there. An error of the GPU itself is raised: no
        clip could be scored after it.
        """
        return list(self.iter_scores(files))

    def iter_scores(self, files: Iterable[ClipFile]) -> Iterator[ScoreRow]:
        """Yield the rows of `score_files`; `files` is read one batch ahead."""
        left = iter(files)
        batches = iter(lambda: list(islice(left, self.batch_size)), [])
        return chain.from_iterable(self.iter_batches(batches))

    def iter_batches(self, batches: Iterable[Sequence[ClipFile]]) -> Iterator[list[ScoreRow]]:
        """Yield the rows of each batch, in order, for a caller who decides which files are scored at once."""
        return map(self._rows, measure_batches(self.rewards, batches, self.num_decoders))

    def _rows(self, batch: Sequence[ClipOutcomes]) -> list[ScoreRow]:
        return [self._row(clip) for clip in batch]

    def _row(self, clip: ClipOutcomes) -> ScoreRow:
        name = clip.file.candidate_id
        scores: dict[str, float | None] = dict.fromkeys(self.columns)
        if clip.unreadable is not None:
            return ScoreRow(name, scores, dict.fromkeys(self.columns, clip.unreadable), clip.unreadable)
        reasons: dict[str, str] = {}
        errors = []
        for reward, outcome in zip(self.rewards, clip.outcomes, strict=True):
            if isinstance(outcome, str):
                errors.append(f"reward {reward.name!r} failed on {name!r}: {outcome}")
                reasons |= dict.fromkeys(reward.columns, errors[-1])
                continue
            for column in reward.columns:
                score = float(outcome[column])
                if math.isnan(score):
                    reasons[column] = _why_undefined(reward, clip.has_audio)
                else:
                    scores[column] = score
        return ScoreRow(name, scores, reasons, "; ".join(errors) or None)


def _why_undefined(reward: Reward, has_audio: bool) -> str:
    silent = "audio" in reward.needs and not has_audio
    return f"not defined by reward {reward.name!r} for this clip{': it has no audio track' if silent else ''}"
