"""Compute what is not in the cache yet: clips in, values in the stores, on Ray. What was computed is never lost."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.actor import ExtractActor
from evaluation.extractors import Chosen, get_extractor
from evaluation.file_keys import FileDigests, value_key
from evaluation.store import FeatureStore
from pipeline.stage import progress_bar
from pipeline.workers import Job, Pool, Result, map_jobs

FLUSH_S = 30.0
FLUSH_CLIPS = 2000

Keys = dict[str, list[str | None]]  # extractor -> the key of each clip's values; None: a file is missing
Errors = dict[tuple[str, str], str]  # (extractor, clip) -> why it has no value


@dataclass(frozen=True)
class Clip:
    """A clip to look at: a sample, or the ground truth of a row."""

    name: str  # for messages
    video_path: str
    audio_path: str | None
    prompt_id: str
    prompt: str
    audio_prompt: str | None


@dataclass(frozen=True, eq=False)
class Wanted:
    """Clips, and the extractors that are to look at them."""

    clips: Sequence[Clip]
    extractors: Sequence[str]


@dataclass(frozen=True)
class ExtractSettings:
    """How the workers work. Of it, protocol and dtype change what values are."""

    cache: Path
    protocol: str
    dtype: str
    device: str
    num_threads: int
    num_decoders: int
    clip_batch_size: int


@dataclass(eq=False)
class Extraction:
    """The state of the stage: stores with what is known, keys of what is wanted, errors of what failed.

    Making it reads the files' contents, where they changed, and the cache.
    """

    chosen: Mapping[str, Chosen]
    wanted: Sequence[Wanted]
    settings: ExtractSettings
    errors: Errors = field(default_factory=dict)

    def __post_init__(self) -> None:
        dtype = "" if self.settings.dtype == "float32" else f"-{self.settings.dtype}"
        self.stores = {
            name: FeatureStore(self.settings.cache / f"{one.key}{dtype}", get_extractor(name).outputs)
            for name, one in self.chosen.items()
        }
        files = [path for part in self.wanted for clip in part.clips for path in (clip.video_path, clip.audio_path)]
        self._digests = FileDigests(self.settings.cache / "files.parquet").of(filter(None, files))
        self._clips = {clip.name: clip for part in self.wanted for clip in part.clips}
        self.keys: list[Keys] = [
            {name: [self._key(name, clip) for clip in part.clips] for name in part.extractors} for part in self.wanted
        ]

    def _key(self, name: str, clip: Clip) -> str | None:
        video = self._digests.get(clip.video_path)
        audio = self._digests.get(clip.audio_path) if clip.audio_path else None
        if clip.audio_path and audio is None:
            return None
        return value_key(video, audio, (clip.prompt, clip.audio_prompt), get_extractor(name).needs)

    @property
    def num_clips(self) -> int:
        return sum(len(part.clips) for part in self.wanted)

    @property
    def num_left(self) -> int:
        """Clips that miss a value."""
        return sum(len(clips) for clips in self._missing().values())

    def run(self, pool: Pool) -> None:
        """Compute what is missing."""
        with progress_bar("evaluate", self.num_clips, self.num_clips - self.num_left) as bar:
            for names, clips in self._missing().items():
                jobs = list(self._jobs(clips, self.settings.clip_batch_size))
                lost = self._map(jobs, names, pool, bar)
                singly = [job for one in lost if len(one["clips"]) > 1 for job in _apart(one)]
                for job in [*(one for one in lost if len(one["clips"]) == 1), *self._map(singly, names, pool, bar)]:
                    self._fail(job, names)
        for store in self.stores.values():
            store.flush()

    def _missing(self) -> dict[tuple[str, ...], list[Clip]]:
        """Extractors -> the clips that miss exactly these; a clip whose file is missing fails at once."""
        groups: dict[tuple[str, ...], list[Clip]] = {}
        seen: set[tuple[str | None, ...]] = set()
        for part, keys in zip(self.wanted, self.keys, strict=True):
            for number, clip in enumerate(part.clips):
                own = {name: keys[name][number] for name in part.extractors}
                for name in (name for name, key in own.items() if key is None):
                    self.errors[name, clip.name] = _no_file(clip, self._digests)
                names = tuple(name for name, key in own.items() if key and key not in self.stores[name])
                # The same file twice is computed once.
                if names and (identity := (*names, *(own[name] for name in names))) not in seen:
                    seen.add(identity)
                    groups.setdefault(names, []).append(clip)
        return groups

    def _jobs(self, clips: Sequence[Clip], size: int) -> Iterator[Job]:
        for start in range(0, len(clips), size):
            part = clips[start : start + size]
            yield {"key": f"{start}-{part[0].name}", "clips": [_plain(clip) for clip in part]}

    def _map(self, jobs: Sequence[Job], names: Sequence[str], pool: Pool, bar: Any) -> list[Job]:
        """Run jobs and keep their values; the jobs that a worker died on each time."""
        lost, by_key, flushed = [], {job["key"]: job for job in jobs}, time.monotonic()
        for result in map_jobs(jobs, ExtractActor, self._actor_settings(names), pool):
            if "lost" in result:
                lost.append(by_key[result["key"]] | {"lost": result["lost"]})
                continue
            self._take(result)
            bar.update(len(result["rows"]))
            pending = max(store.num_pending for store in self.stores.values())
            if pending >= FLUSH_CLIPS or time.monotonic() - flushed > FLUSH_S:
                for store in self.stores.values():
                    store.flush()
                flushed = time.monotonic()
        return lost

    def _actor_settings(self, names: Sequence[str]) -> dict[str, Any]:
        return {
            "extractors": {name: self.chosen[name].path for name in names},
            "protocol": self.settings.protocol,
            "device": self.settings.device,
            "dtype": self.settings.dtype,
            "num_threads": self.settings.num_threads,
            "num_decoders": self.settings.num_decoders,
        }

    def _take(self, result: Result) -> None:
        for row in result["rows"]:
            clip = self._clips[row["key"]]
            for name, values in row["values"].items():
                key = self._key(name, clip)
                assert key is not None, f"{clip.name} was decoded, so its files are there"
                self.stores[name].add(key, values)
            self.errors |= {(name, clip.name): message for name, message in row["errors"].items()}

    def _fail(self, job: Job, names: Sequence[str]) -> None:
        self.errors |= {(name, clip["key"]): job["lost"] for name in names for clip in job["clips"]}


def _plain(clip: Clip) -> dict[str, Any]:
    return {
        "key": clip.name,
        "video_path": clip.video_path,
        "audio_path": clip.audio_path,
        "prompt_id": clip.prompt_id,
        "prompt": clip.prompt,
        "audio_prompt": clip.audio_prompt,
    }


def _apart(job: Job) -> list[Job]:
    """A job per clip, so that the one that kills workers is named."""
    return [{"key": f"alone-{clip['key']}", "clips": [clip]} for clip in job["clips"]]


def _no_file(clip: Clip, digests: Mapping[str, str]) -> str:
    missing = [path for path in (clip.video_path, clip.audio_path) if path and path not in digests]
    return f"{' and '.join(missing)} cannot be read: no such file"
