"""The pairs of a signal test, and for each the unrelated clips with which it is compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dpo.construct.shift import Shifter
from dpo.construct.winners import Winner, Winners
from dpo.data.constructed_schema import STAGE
from dpo.data.dataset import PairDataset
from dpo.data.schema import MODALITIES
from model.javisdit.pipeline import JointAVPipeline

Latents = dict[str, Tensor]  # modality -> float32 latents


@dataclass(frozen=True, eq=False)
class Trial:
    """A pair of the test.

    Attributes:
        label: the distortion, one row of the table.
        clip_id: id of the winner's clip.
        chosen, rejected: latents of winner and loser.
        text: (length, text_dim) embedding of the caption.
        size: height and width in pixels and number of frames.
    """

    label: str
    clip_id: str
    chosen: Latents
    rejected: Latents
    text: Tensor
    size: tuple[int, int, int]

    @property
    def distorted(self) -> list[str]:
        """The modalities in which winner and loser differ, or the sound where they do not differ at all."""
        return [name for name in MODALITIES if not torch.equal(self.chosen[name], self.rejected[name])] or ["audio"]

    @property
    def shapes(self) -> tuple[object, ...]:
        return (*(tuple(self.chosen[name].shape) for name in MODALITIES), self.size)


def trials_of_dataset(dataset: PairDataset, count: int) -> list[Trial]:
    """Return `count` pairs of a constructed dataset, spread evenly over its rows."""
    stages = dataset.rows.with_format(None)[STAGE] if STAGE in dataset.rows.column_names else [0] * len(dataset)
    trials = []
    for row in spread(len(dataset), count):
        pair = dataset[row]
        clip_id, size = pair.pair_id.partition(">")[0], (pair.height, pair.width, pair.num_frames)
        trials.append(Trial(f"stage {stages[row]}", clip_id, pair.chosen, pair.rejected, pair.text, size))
    return sorted(trials, key=lambda trial: trial.label)


def trials_of_clips(
    winners: Winners, pipeline: JointAVPipeline, shifts_s: Sequence[float], count: int, folder: Path
) -> list[Trial]:
    """Return pairs of `count` clips, each at every shift of the sound in seconds; silence is kept in `folder`."""
    shifter = Shifter(pipeline, folder)
    return [
        _shifted_trial(winners[row], shifter, round(shift_s / shifter.step_s))
        for shift_s in shifts_s
        for row in spread(len(winners), count)
    ]


def comparable(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials for which there is an unrelated clip of the same shapes.

    Raises:
        ValueError: there are none.
    """
    clips: dict[tuple[object, ...], set[str]] = {}
    for trial in trials:
        clips.setdefault(trial.shapes, set()).add(trial.clip_id)
    kept = [trial for trial in trials if len(clips[trial.shapes]) > 1]
    if not kept:
        raise ValueError(
            "No two clips of the signal test have the same size, so none has an unrelated clip to be compared with: "
            "test more clips."
        )
    return kept


def unrelated(trials: Sequence[Trial], number: int) -> Iterator[Trial]:
    """Return an endless iterator over the trials of other clips with the shapes of a comparable trial."""
    own = trials[number]
    others = [one for one in trials if one.clip_id != own.clip_id and one.shapes == own.shapes]
    return cycle(others[number % len(others) :] + others[: number % len(others)])


def spread(total: int, count: int) -> list[int]:
    """Return up to `count` numbers from 0 to `total` - 1, spread evenly."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int)).tolist()


def shift_label(shift_s: float) -> str:
    """Return the label of a shift, such as "+160 ms"."""
    return f"{1000 * shift_s:+.0f} ms"


def _shifted_trial(winner: Winner, shifter: Shifter, steps: int) -> Trial:
    chosen = {name: _tensor(latents) for name, latents in winner.latents.items()}
    rejected = chosen | {"audio": _tensor(shifter.shifted(winner, steps))}
    return Trial(
        shift_label(steps * shifter.step_s), winner.winner_id, chosen, rejected, _tensor(winner.text), winner.size
    )


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))
