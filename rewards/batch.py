"""Measure batches of clip files with several judges: each file is decoded once, a failing clip costs only itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.devices import is_device_lost
from rewards.base import Judge, Prompt
from rewards.decode import ClipFile, decode_ahead

if TYPE_CHECKING:
    import numpy as np

    from media.clip import AVClip

Values = dict[str, "np.ndarray"]  # output -> float32 () of a score, (width,) of a feature
Outcome = Values | str  # of one judge on one clip; a string says why there are no values


@dataclass(frozen=True, eq=False)
class ClipOutcomes:
    """The outcomes of all judges on one clip, in the order of the judges.

    Attributes:
        unreadable: why the file cannot be decoded; `outcomes` is empty then.
    """

    file: ClipFile
    outcomes: list[Outcome]
    unreadable: str | None = None
    has_audio: bool = False


def measure_batches(
    judges: Sequence[Judge], batches: Iterable[Sequence[ClipFile]], num_decoders: int
) -> Iterator[list[ClipOutcomes]]:
    """Yield the outcomes of each batch, in order; the next batch is decoded on threads meanwhile.

    Raises:
        RuntimeError: the device itself failed, so that no later clip could be measured.
    """

    def frames(num_frames: int, fps: float) -> frozenset[int] | None:
        return combined_frames(judges, num_frames, fps)

    def measure(batch: Sequence[tuple[ClipFile, AVClip | str]]) -> list[ClipOutcomes]:
        return _measure_decoded(judges, batch)

    # map, unlike a loop, frees a batch once it is measured, while the one after the next is already decoded.
    return map(measure, decode_ahead(batches, combined_needs(judges), num_decoders, frames))


def combined_needs(judges: Iterable[Judge]) -> frozenset[str]:
    """Return the union of `needs`, of "video", "audio" and "text"; other parts of a file are not decoded."""
    return frozenset[str]().union(*(judge.needs for judge in judges))


def combined_frames(judges: Iterable[Judge], num_frames: int, fps: float) -> frozenset[int] | None:
    """Return the frames of a clip that any of the judges uses; None for all."""
    chosen: set[int] = set()
    for judge in judges:
        if "video" in judge.needs:
            indices = judge.frames(num_frames, fps)
            if indices is None:
                return None
            chosen.update(indices)
    return frozenset(chosen)


def measure_batch(judge: Judge, clips: Sequence[AVClip], prompts: Sequence[Prompt]) -> list[Outcome]:
    """Return the outcome of each clip; a batch that fails is tried again clip by clip."""
    if not clips:
        return []
    # Boundary to code and input from outside the project: any exception must cost one clip, not the batch.
    try:
        return _call(judge, clips, prompts)
    except Exception as error:
        if is_device_lost(error):
            raise  # every later clip would fail as well
        if len(clips) == 1:
            return [f"{type(error).__name__}: {error}"]
    return [
        outcome
        for clip, prompt in zip(clips, prompts, strict=True)
        for outcome in measure_batch(judge, [clip], [prompt])
    ]


def _measure_decoded(judges: Sequence[Judge], batch: Sequence[tuple[ClipFile, AVClip | str]]) -> list[ClipOutcomes]:
    clips = [clip for _, clip in batch if not isinstance(clip, str)]
    prompts = [file.prompt for file, clip in batch if not isinstance(clip, str)]
    by_judge = [measure_batch(judge, clips, prompts) for judge in judges]
    by_clip = ([outcomes[index] for outcomes in by_judge] for index in range(len(clips)))
    return [
        ClipOutcomes(file, [], unreadable=clip)
        if isinstance(clip, str)
        else ClipOutcomes(file, next(by_clip), has_audio=clip.has_audio)
        for file, clip in batch
    ]


def _call(judge: Judge, clips: Sequence[AVClip], prompts: Sequence[Prompt]) -> list[Outcome]:
    """Call the judge and check that it keeps its contract: its outputs, each of the declared shape."""
    import numpy as np

    tensors = judge.measure(list(clips), list(prompts))
    if set(tensors) != set(judge.outputs):
        raise ValueError(f"it returned the columns {sorted(tensors)}, but declares {sorted(judge.outputs)}")
    for name, width in judge.outputs.items():
        shape, wanted = tuple(tensors[name].shape), (len(clips),) if width is None else (len(clips), width)
        if shape != wanted:
            due = "(B,)" if width is None else f"(B, {width})"
            raise ValueError(f"its {name} has shape {shape} for {len(clips)} clips; return {due}")
    arrays = {name: tensors[name].detach().float().cpu().numpy() for name in judge.outputs}
    rows = [{name: array[index] for name, array in arrays.items()} for index in range(len(clips))]
    infinite = [[name for name, value in row.items() if np.isinf(value).any()] for row in rows]
    return [f"infinite {', '.join(names)}" if names else row for row, names in zip(rows, infinite, strict=True)]
