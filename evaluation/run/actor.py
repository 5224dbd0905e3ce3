"""The Ray worker of an evaluation: each clip is decoded once and given to every judge that has no value of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from core.devices import check_device
from rewards.base import Prompt
from rewards.batch import ClipOutcomes, measure_batches
from rewards.decode import ClipFile
from rewards.registry import get_judge

if TYPE_CHECKING:
    from jobs.workers import Job, Result


class MeasureActor:
    """Measures clips with a list of judges.

    Settings: judges (name -> path of the weights or None), protocol, device, dtype, num_threads, num_decoders.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        check_device(settings["device"])
        self._judges = [
            get_judge(name).load(
                path, device=settings["device"], dtype=settings["dtype"], protocol=settings["protocol"]
            )
            for name, path in settings["judges"].items()
        ]
        self._num_decoders = settings["num_decoders"]
        if (torch := sys.modules.get("torch")) is not None:
            torch.set_num_threads(settings["num_threads"])

    def run_all(self, jobs: Sequence[Job]) -> Iterator[Result]:
        """Yield per job a row per clip: the values of each judge, or the message of its failure."""
        batches = ([_clip_file(one) for one in job["clips"]] for job in jobs)
        measured = measure_batches(self._judges, batches, self._num_decoders)
        for job, batch in zip(jobs, measured, strict=True):
            yield {"key": job["key"], "rows": [self._row(clip) for clip in batch]}

    def _row(self, clip: ClipOutcomes) -> dict[str, Any]:
        row: dict[str, Any] = {"key": clip.file.candidate_id, "values": {}, "errors": {}}
        if clip.unreadable is not None:
            return row | {"errors": {judge.name: clip.unreadable for judge in self._judges}}
        for judge, outcome in zip(self._judges, clip.outcomes, strict=True):
            if isinstance(outcome, str):
                row["errors"][judge.name] = f"{judge.name}: {outcome}"
            else:
                row["values"][judge.name] = outcome
        return row


def _clip_file(one: dict[str, Any]) -> ClipFile:
    prompt = Prompt(one["prompt_id"], one["prompt"], one["audio_prompt"])
    return ClipFile(one["key"], one["video_path"], one["audio_path"], prompt)
