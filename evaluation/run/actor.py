"""What runs in the Ray workers: clips are decoded once and given to every extractor that misses them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from core.devices import check_device, is_device_lost
from evaluation.judges.registry import get_extractor
from rewards.base import Prompt
from rewards.decode import ClipFile, decode_ahead

if TYPE_CHECKING:
    from evaluation.judges.base import Extractor
    from jobs.workers import Job, Result
    from media.clip import AVClip

Item = tuple[str, "AVClip", Prompt]  # key of the clip, clip, prompt
Outcome = dict[str, np.ndarray] | str  # the values of a clip, or why there are none


class ExtractActor:
    """Computes what a list of extractors say of clips.

    Settings: extractors (name -> path of the weights or None), protocol, device, dtype, num_threads, num_decoders.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        check_device(settings["device"])
        self._extractors = {
            name: get_extractor(name).load(
                path, device=settings["device"], dtype=settings["dtype"], protocol=settings["protocol"]
            )
            for name, path in settings["extractors"].items()
        }
        self._num_decoders = settings["num_decoders"]
        if (torch := sys.modules.get("torch")) is not None:
            torch.set_num_threads(settings["num_threads"])

    def run_all(self, jobs: Sequence[Job]) -> Iterator[Result]:
        """Per clip: the values of each extractor, or the message of its failure; the next job is decoded meanwhile."""
        needs = frozenset[str]().union(*(extractor.needs for extractor in self._extractors.values()))
        batches = decode_ahead(
            ([_clip_file(one) for one in job["clips"]] for job in jobs), needs, self._num_decoders, self._frames
        )
        for job, batch in zip(jobs, batches, strict=True):
            yield {"key": job["key"], "rows": self._extract(batch)}

    def _extract(self, batch: Sequence[tuple[ClipFile, AVClip | str]]) -> list[dict[str, Any]]:
        rows: dict[str, dict[str, Any]] = {
            file.candidate_id: {"key": file.candidate_id, "values": {}, "errors": {}} for file, _ in batch
        }
        readable = [(file.candidate_id, clip, file.prompt) for file, clip in batch if not isinstance(clip, str)]
        for file, clip in batch:
            if isinstance(clip, str):
                rows[file.candidate_id]["errors"] = dict.fromkeys(self._extractors, clip)
        for name, extractor in self._extractors.items():
            for (key, _, _), outcome in zip(readable, _extract_batch(extractor, readable), strict=True):
                rows[key]["errors" if isinstance(outcome, str) else "values"][name] = outcome
        return list(rows.values())

    def _frames(self, num_frames: int, fps: float) -> frozenset[int] | None:
        chosen: set[int] = set()
        for extractor in self._extractors.values():
            if "video" in extractor.needs:
                indices = extractor.frames(num_frames, fps)
                if indices is None:
                    return None
                chosen.update(indices)
        return frozenset(chosen)


def _clip_file(one: dict[str, Any]) -> ClipFile:
    prompt = Prompt(one["prompt_id"], one["prompt"], one["audio_prompt"])
    return ClipFile(one["key"], one["video_path"], one["audio_path"], prompt)


def _extract_batch(extractor: Extractor, items: Sequence[Item]) -> list[Outcome]:
    """The outcome of each clip; a batch that fails is tried again clip by clip."""
    if not items:
        return []
    # Boundary to input that is not ours: an exception must cost one clip, not the batch.
    try:
        return [*_call(extractor, items)]
    except Exception as error:
        if is_device_lost(error):
            raise  # no clip's fault alone, and whatever came after would fail as well
        if len(items) == 1:
            return [f"{extractor.name}: {type(error).__name__}: {error}"]
    return [outcome for item in items for outcome in _extract_batch(extractor, [item])]


def _call(extractor: Extractor, items: Sequence[Item]) -> list[Outcome]:
    values = extractor.extract([clip for _, clip, _ in items], [prompt for _, _, prompt in items])
    arrays = {name: values[name].detach().float().cpu().numpy() for name in extractor.outputs}
    for name, width in extractor.outputs.items():
        expected = (len(items),) if width is None else (len(items), width)
        assert arrays[name].shape == expected, f"{extractor.name}.{name}: {arrays[name].shape=}, {expected=}"
    return [_checked({name: array[number] for name, array in arrays.items()}) for number in range(len(items))]


def _checked(values: dict[str, np.ndarray]) -> Outcome:
    """NaN means: not defined for this clip. Infinite is a failure."""
    infinite = [name for name, value in values.items() if np.isinf(value).any()]
    return f"{', '.join(infinite)} came out infinite" if infinite else values
