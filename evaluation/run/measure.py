"""Compute the values that the cache lacks, on Ray; finished values survive an interruption."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.judges.choose import Chosen
from evaluation.run.actor import MeasureActor
from evaluation.run.file_keys import FileDigests, value_key
from evaluation.run.store import FeatureStore
from jobs.stage import progress_bar
from jobs.workers import Job, Pool, Result, map_jobs

FLUSH_S = 30.0
FLUSH_CLIPS = 2000

Keys = dict[str, list[str | None]]  # judge -> the key of each clip's values; None: a file is missing
Errors = dict[tuple[str, str], str]  # (judge, name of the clip) -> why it has no value


@dataclass(frozen=True)
class Clip:
    """A clip to measure: a sample, or the ground truth of a row."""

    name: str  # for messages
    video_path: str
    audio_path: str | None
    prompt_id: str
    prompt: str
    audio_prompt: str | None


@dataclass(frozen=True, eq=False)
class Wanted:
    """Clips, and the judges that are to measure them."""

    clips: Sequence[Clip]
    judges: Sequence[str]


@dataclass(frozen=True)
class MeasureSettings:
    """Settings of the workers. Protocol and dtype change the values."""

    cache: Path
    protocol: str
    dtype: str
    device: str
    num_threads: int
    num_decoders: int
    clip_batch_size: int


@dataclass(frozen=True)
class _Task:
    """A clip that lacks values, and the key of each judge's values."""

    clip: Clip
    keys: Mapping[str, str]


class Measurement:
    """State of the stage: stores of known values, keys of the values to compute, and failures.

    Making it reads the cache, and the files' contents where they changed; it writes nothing before `run`.

    Attributes:
        stores: by judge.
        keys: for each element of `wanted`, the keys of its clips.
    """

    def __init__(self, chosen: Mapping[str, Chosen], wanted: Sequence[Wanted], settings: MeasureSettings) -> None:
        self._chosen = chosen
        self._wanted = wanted
        self._settings = settings
        dtype = "" if settings.dtype == "float32" else f"-{settings.dtype}"
        self.stores = {
            name: FeatureStore(settings.cache / f"{one.key}{dtype}", one.judge.outputs) for name, one in chosen.items()
        }
        files = [path for part in wanted for clip in part.clips for path in (clip.video_path, clip.audio_path)]
        self._digests = FileDigests(settings.cache / "files.parquet")
        self._found = self._digests.of(filter(None, files))
        self.keys: list[Keys] = [
            {name: [self._key(name, clip) for clip in part.clips] for name in part.judges} for part in wanted
        ]
        self._failed: dict[tuple[str, str], str] = {}  # (judge, key) -> why

    def _key(self, name: str, clip: Clip) -> str | None:
        video = self._found.get(clip.video_path)
        audio = self._found.get(clip.audio_path) if clip.audio_path else None
        if clip.audio_path and audio is None:
            return None
        return value_key(video, audio, (clip.prompt, clip.audio_prompt), self._chosen[name].judge.needs)

    @property
    def num_left(self) -> int:
        """Number of clips that lack a value; a file that occurs twice counts once."""
        return sum(len(tasks) for tasks in self._missing().values())

    @property
    def num_clips(self) -> int:
        return sum(len(part.clips) for part in self._wanted)

    @property
    def num_known_samples(self) -> int:
        """Number of samples (clips of the first part) that lack no value."""
        columns = [
            [key is not None and key in self.stores[name] for key in keys] for name, keys in self.keys[0].items()
        ]
        return sum(all(column) for column in zip(*columns, strict=True))

    def run(self, pool: Pool) -> None:
        """Compute the missing values; those that arrive before an interruption are kept."""
        self._digests.save()
        missing = self._missing()
        num_left = sum(map(len, missing.values()))
        try:
            with progress_bar("evaluate", self.num_clips, self.num_clips - num_left) as bar:
                for names, tasks in missing.items():
                    self._compute(names, tasks, pool, bar)
        finally:
            self._flush()

    def errors(self) -> Errors:
        """Return why clips have no value, also for clips with the same files and texts as a failed one."""
        found: Errors = {}
        for clip, keys in self._clips():
            for name, key in keys.items():
                if key is None:
                    found[name, clip.name] = _no_file(clip, self._found)
                elif (name, key) in self._failed:
                    found[name, clip.name] = self._failed[name, key]
        return found

    def _clips(self) -> Iterator[tuple[Clip, dict[str, str | None]]]:
        """Yield all clips, with the keys of the judges that are to measure them."""
        for part, keys in zip(self._wanted, self.keys, strict=True):
            for number, clip in enumerate(part.clips):
                yield clip, {name: keys[name][number] for name in part.judges}

    def _missing(self) -> dict[tuple[str, ...], list[_Task]]:
        """Return judges -> the clips that lack the values of exactly these; a file that occurs twice counts once."""
        groups: dict[tuple[str, ...], list[_Task]] = {}
        claimed: set[tuple[str, str]] = set()
        for clip, keys in self._clips():
            own = {
                name: key
                for name, key in keys.items()
                if key is not None and key not in self.stores[name] and (name, key) not in claimed
            }
            if own:
                claimed.update(own.items())
                groups.setdefault(tuple(own), []).append(_Task(clip, own))
        return groups

    def _compute(self, names: Sequence[str], tasks: Sequence[_Task], pool: Pool, bar: Any) -> None:
        by_key = {str(number): task for number, task in enumerate(tasks)}
        lost = self._map(list(_jobs(by_key, self._settings.clip_batch_size)), names, by_key, pool, bar)
        # A clip per job, so that the one that kills workers is named.
        alone = [job for one in lost if len(one["clips"]) > 1 for job in _jobs(_only(by_key, one), 1)]
        lost = [one for one in lost if len(one["clips"]) == 1]
        if alone:
            lost += self._map(alone, names, by_key, pool, bar)
        for job in lost:
            task = by_key[job["clips"][0]["key"]]
            self._failed |= {(name, task.keys[name]): job["lost"] for name in names}

    def _map(
        self, jobs: Sequence[Job], names: Sequence[str], tasks: Mapping[str, _Task], pool: Pool, bar: Any
    ) -> list[Job]:
        """Run jobs and keep their values; return the jobs that killed a worker at every try."""
        lost, by_key, flushed = [], {job["key"]: job for job in jobs}, time.monotonic()
        for result in map_jobs(jobs, MeasureActor, self._actor_settings(names), pool):
            if "lost" in result:
                lost.append(by_key[result["key"]] | {"lost": result["lost"]})
                continue
            self._take(result, tasks)
            bar.update(len(result["rows"]))
            pending = max(store.num_pending for store in self.stores.values())
            if pending >= FLUSH_CLIPS or time.monotonic() - flushed > FLUSH_S:
                self._flush()
                flushed = time.monotonic()
        return lost

    def _actor_settings(self, names: Sequence[str]) -> dict[str, Any]:
        return {
            "judges": {name: self._chosen[name].path for name in names},
            "protocol": self._settings.protocol,
            "device": self._settings.device,
            "dtype": self._settings.dtype,
            "num_threads": self._settings.num_threads,
            "num_decoders": self._settings.num_decoders,
        }

    def _take(self, result: Result, tasks: Mapping[str, _Task]) -> None:
        for row in result["rows"]:
            keys = tasks[row["key"]].keys
            for name, values in row["values"].items():
                self.stores[name].add(keys[name], values)
            self._failed |= {(name, keys[name]): message for name, message in row["errors"].items()}

    def _flush(self) -> None:
        for store in self.stores.values():
            store.flush()


def _jobs(tasks: Mapping[str, _Task], size: int) -> Iterator[Job]:
    keys = list(tasks)
    for start in range(0, len(keys), size):
        part = keys[start : start + size]
        yield {"key": f"{size}-{part[0]}", "clips": [_plain(key, tasks[key].clip) for key in part]}


def _only(tasks: Mapping[str, _Task], job: Job) -> dict[str, _Task]:
    return {clip["key"]: tasks[clip["key"]] for clip in job["clips"]}


def _plain(key: str, clip: Clip) -> dict[str, Any]:
    return {
        "key": key,
        "video_path": clip.video_path,
        "audio_path": clip.audio_path,
        "prompt_id": clip.prompt_id,
        "prompt": clip.prompt,
        "audio_prompt": clip.audio_prompt,
    }


def _no_file(clip: Clip, found: Mapping[str, str]) -> str:
    missing = [path for path in (clip.video_path, clip.audio_path) if path and path not in found]
    return f"{' and '.join(missing)} cannot be read: no such file"
