"""Losers whose sound is early or late: the winner's audio latents, moved by whole steps.

SyncDPO (arXiv 2605.12179) makes its losers by rule from real pairs; what is known of it, and how exact a shift of
latents is, stands in docs/upstream/constructed_negatives.md, sections 1 and 4.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from dpo.construct.config import ConstructSettings
from dpo.construct.guards import reason_to_leave_out
from dpo.construct.silence import silence_latents
from dpo.construct.winners import Winner
from dpo.data.constructed_schema import DISTORTION_S, STAGE
from media.onsets import Onsets, find_onsets
from model.data.draws import sample_seed
from model.javisdit.pipeline import JointAVPipeline
from model.prepare.check import to_latents
from model.prepare.parts import Row


class Shifter:
    """Moves the sound of winners."""

    def __init__(self, pipeline: JointAVPipeline, folder: Path) -> None:
        """Take the audio codec of a pipeline; latents of silence are kept in `folder`."""
        self.pipeline = pipeline
        self.folder = folder
        self.step_s = pipeline.audio_codec.samples_per_step / pipeline.defaults.sample_rate
        self._silences: dict[int, np.ndarray] = {}

    def shifted(self, winner: Winner, steps: int) -> np.ndarray:
        """Return the winner's audio latents, float16 (C, T, M), `steps` later; earlier for a negative number.

        Raises:
            ValueError: another codec made the latents.
        """
        num_samples, audio = winner.num_samples(self.pipeline.defaults.sample_rate), winner.latents["audio"]
        silence = self._silence(num_samples)
        if silence.shape != audio.shape:
            raise ValueError(
                f"Clip {winner.winner_id!r} has audio latents {audio.shape}, but the model's codec gives "
                f"{silence.shape} for its length: give the model with which the clips were prepared."
            )
        return shift_latents(audio, silence, steps, self.pipeline.audio_codec.num_real_steps(num_samples))

    def _silence(self, num_samples: int) -> np.ndarray:
        if num_samples not in self._silences:
            self._silences[num_samples] = silence_latents(self.pipeline, num_samples, self.folder)
        return self._silences[num_samples]


class ShiftLosers:
    """Makes the pairs of a winner, one per stage, or the reasons why they are left out.

    Source of the guards and of the equal odds of early and late: docs/upstream/constructed_negatives.md, section 4.
    """

    def __init__(self, settings: ConstructSettings, pipeline: JointAVPipeline, folder: Path) -> None:
        self._settings = settings
        self._pipeline = pipeline
        self._shifter = Shifter(pipeline, folder)
        self._ranges = [stage.steps(self._shifter.step_s) for stage in settings.stages]

    def rows(self, winner: Winner) -> list[Row]:
        onsets = self._onsets(winner)
        return [self._row(winner, onsets, stage) for stage in range(len(self._ranges))]

    def failures(self, winner: Winner, reason: str) -> list[Row]:
        return [_failure(winner, stage, "", reason) for stage in range(len(self._ranges))]

    def _row(self, winner: Winner, onsets: Onsets, stage: int) -> Row:
        pair_id = _pair_id(winner, stage)
        steps = draw_steps(self._settings.seed, pair_id, self._ranges[stage])
        shift_s = steps * self._shifter.step_s
        reason = reason_to_leave_out(onsets, shift_s, winner.duration_s, self._settings.keep_onsets)
        if reason is not None:
            return _failure(winner, stage, f"{shift_s:+.3f}", reason)
        loser = {"audio": self._shifter.shifted(winner, steps)}
        return winner.pair(pair_id, loser) | {STAGE: stage, DISTORTION_S: shift_s}

    def _onsets(self, winner: Winner) -> Onsets:
        rate = self._pipeline.defaults.sample_rate
        tensors = {"audio": torch.from_numpy(winner.latents["audio"].astype(np.float32))}
        [sound] = self._pipeline.decode_audio([to_latents(tensors, winner.size, winner.columns["fps"], rate)])
        return find_onsets(sound, rate)


def shift_latents(audio: np.ndarray, silence: np.ndarray, steps: int, num_real: int) -> np.ndarray:
    """Return audio latents `steps` later along T, earlier for a negative number.

    Steps from which the sound moved away become silent. Steps from `num_real` on are the codec's padding, which may be
    loud: they stay where they are and are never moved into the clip.

    Args:
        audio: (C, T, M).
        silence: latents of silence, of the same shape.
        steps: number of steps.
        num_real: number of steps of `audio` that hold sound.
    """
    moved = audio.copy()
    if not steps:
        return moved
    moved[:, :num_real] = silence[:, :num_real]
    length = num_real - abs(steps)
    if length > 0:
        start, origin = max(steps, 0), max(-steps, 0)
        moved[:, start : start + length] = audio[:, origin : origin + length]
    return moved


def draw_steps(seed: int, pair_id: str, limits: tuple[int, int]) -> int:
    """Draw the shift of a pair: its size uniform between the limits, early or late with equal odds."""
    rng = np.random.default_rng(sample_seed(seed, pair_id, 0))
    return int(rng.choice((-1, 1)) * rng.integers(limits[0], limits[1] + 1))


def _pair_id(winner: Winner, stage: int) -> str:
    return f"{winner.winner_id}>stage-{stage}"


def _failure(winner: Winner, stage: int, shift: str, reason: str) -> Row:
    ids = {"pair_id": _pair_id(winner, stage), "prompt_id": winner.columns["prompt_id"]}
    return ids | {"distortion_s": shift, "reason": reason}
