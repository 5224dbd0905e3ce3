"""Trials of a learned reward: how well it separates clean held-out Bounce clips from corrupted ones.

Clips are written to files and read again, and scored as in the pipeline.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from media import AVClip, read_clip, write_clip
from rewards.base import Prompt, Reward
from rewards.registry import get_reward
from rewards.synchformer import SynchformerReward
from synthetic.captions import caption
from synthetic.corrupt import MOTION, PICTURE, SOUND, WEAKEST, Corruption, shift_sound
from synthetic.render import render_clip
from synthetic.scene import HELD_OUT_SEED_START, scene_from_seed
from synthetic.train_rewards.training import area_under_roc

FIRST_SEED = HELD_OUT_SEED_START + 2_000_000  # different scenes from those on which generators are graded
BATCH_SIZE = 50
OTHER = 104_729  # distance of seeds to the scene from which a wrong caption or sound is taken


@dataclass(frozen=True)
class Trial:
    """Result of one column for one kind of corruption."""

    reward: str
    kind: str
    column: str
    value: float  # area under the ROC curve, or a share of clips
    num_clips: int  # number of scenes, each clean and corrupted

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of Hanley and McNeil (1982) for an area; for a share it is close to the normal interval."""
        area, n = self.value, self.num_clips
        second = area / (2 - area) + 2 * area**2 / (1 + area) - 2 * area**2
        error = 1.96 * math.sqrt((area * (1 - area) + (n - 1) * second) / n**2)
        return max(area - error, 0.0), min(area + error, 1.0)


@dataclass(frozen=True)
class _Case:
    clip: AVClip
    text: str


def run_trials(name: str, weights: str, num_trials: int) -> list[Trial]:
    """Run all trials of a reward.

    Args:
        name: name of the reward.
        weights: folder of its weights, or the name of a preset.
        num_trials: number of held-out scenes per trial.
    """
    reward = get_reward(name).load(weights)
    clean = [_Case(render_clip(scene), caption(scene)) for scene in map(scene_from_seed, _seeds(num_trials))]
    base = _scores(reward, clean, f"{name}: clean")
    trials = []
    for kind, columns, change in _changes(name):
        wrong = [change(case, seed) for case, seed in zip(clean, _seeds(num_trials), strict=True)]
        found = _scores(reward, wrong, f"{name}: {kind}")
        for column in columns:
            sign = 1 if reward.higher_is_better[column] else -1
            area = area_under_roc(*(torch.from_numpy(sign * one[column]) for one in (base, found)))
            trials.append(Trial(name, kind, column, area, num_trials))
    if isinstance(reward, SynchformerReward):
        trials.append(_offsets(reward, clean))
    return trials


def report(trials: Sequence[Trial]) -> str:
    """Return the trials as a Markdown table."""
    lines = ["| reward | corruption | column | AUC | 95 % interval |", "|---|---|---|---|---|"]
    for one in trials:
        low, high = one.interval
        lines.append(f"| {one.reward} | {one.kind} | {one.column} | {one.value:.3f} | {low:.3f} - {high:.3f} |")
    return "\n".join(lines)


def _seeds(num_trials: int) -> range:
    return range(FIRST_SEED, FIRST_SEED + num_trials)


def _changes(name: str) -> Iterator[tuple[str, tuple[str, ...], Callable[[_Case, int], _Case]]]:
    """Yield the kind of each corruption, the columns that should get worse, and the function that applies it."""
    if name == "audiobox":
        yield from ((kind, ("audio_quality",), _corrupted(apply)) for kind, apply in SOUND.items())
    if name == "videoalign":
        yield from ((kind, ("visual_quality",), _corrupted(apply)) for kind, apply in PICTURE.items())
        yield from ((kind, ("motion_quality",), _corrupted(apply)) for kind, apply in MOTION.items())
        yield "wrong caption", ("text_alignment",), _wrong_caption
    if name == "imagebind":
        yield "wrong caption", ("ib_tv", "ib_ta"), _wrong_caption
        yield "sound of another scene", ("ib_av",), _wrong_sound
    if name == "synchformer":
        yield "sound moved by 0.2 s or more", ("desync",), _moved


def _corrupted(apply: Corruption) -> Callable[[_Case, int], _Case]:
    def change(case: _Case, seed: int) -> _Case:
        rng = np.random.default_rng((seed, 5))
        return replace(case, clip=apply(case.clip, rng.uniform(WEAKEST, 1), rng))

    return change


def _wrong_caption(case: _Case, seed: int) -> _Case:
    return replace(case, text=caption(scene_from_seed(seed + OTHER)))


def _wrong_sound(case: _Case, seed: int) -> _Case:
    return replace(case, clip=replace(case.clip, audio=render_clip(scene_from_seed(seed + OTHER)).audio))


def _moved(case: _Case, seed: int) -> _Case:
    rng = np.random.default_rng((seed, 6))
    return replace(case, clip=shift_sound(case.clip, float(rng.choice([-1, 1]) * rng.uniform(0.2, 0.8))))


def _offsets(reward: SynchformerReward, clean: Sequence[_Case]) -> Trial:
    """Shift each sound by a random offset of the grid; return the share for which this offset is the most likely."""
    grid = reward.offsets_s.numpy()
    wanted = np.random.default_rng(7).integers(len(grid), size=len(clean))
    moved = [replace(case, clip=shift_sound(case.clip, -float(grid[k]))) for case, k in zip(clean, wanted, strict=True)]
    found = np.concatenate([reward.offset_distribution(clips).argmax(dim=1).numpy() for clips in _files(moved)])
    return Trial(
        "synchformer", "offset of the grid recognised", "share of clips", float((found == wanted).mean()), len(clean)
    )


def _scores(reward: Reward, cases: Sequence[_Case], label: str) -> dict[str, np.ndarray]:
    """Return the scores of the cases, float64 (N,) per column."""
    found: dict[str, list[float]] = {column: [] for column in reward.columns}
    texts = (case.text for case in cases)
    for clips in tqdm(_files(cases), desc=label, total=math.ceil(len(cases) / BATCH_SIZE), leave=False):
        prompts = [Prompt(str(index), next(texts)) for index in range(len(clips))]
        for column, values in reward.score(clips, prompts).items():
            found[column] += values.tolist()
    return {column: np.array(values) for column, values in found.items()}


def _files(cases: Sequence[_Case]) -> Iterator[list[AVClip]]:
    """Yield the clips in batches after writing them to files and reading them again."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        for start in range(0, len(cases), BATCH_SIZE):
            clips = []
            for case in cases[start : start + BATCH_SIZE]:
                write_clip(case.clip, path)
                clips.append(read_clip(path, audio_path=path.with_suffix(".wav")))
            yield clips
