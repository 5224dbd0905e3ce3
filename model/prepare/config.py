"""Settings of `python -m model.prepare`, partly shared with `python -m dpo.prepare`. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from core.cli import config_to_dict
from jobs.stage import setting
from model.presets import PRESETS

ROW_SETTINGS = ("model", "buckets", "audio_only", "audio_fps", "seed", "dtype")  # that decide the rows


@dataclass(frozen=True)
class RowSettings:
    """Plain values that decide the content of rows: any process makes the same rows from them."""

    clips: str  # table or folder
    model: str
    buckets: dict[str, Any] | None  # None: the model's own size and length
    audio_only: bool
    audio_fps: float
    seed: int
    device: str
    dtype: str  # of the text encoder

    encoder: ClassVar[str] = "model.prepare.rows:RowEncoder"  # class that encodes the rows; imports torch


@dataclass(frozen=True)
class PrepareOptions:
    """Settings shared by the commands that prepare clips or pairs."""

    model: str = setting("tiny", "model that will be trained: 'tiny' or a model folder")
    output: str = setting("", "needed: new folder for the dataset, which training takes as --dataset")
    device: str | None = setting(None, "torch device for encoding; default: cuda with gpus_per_worker, else cpu")
    dtype: Literal["float32", "bfloat16"] = setting("float32", "precision of the text encoder's weights")
    num_workers: int = setting(0, "processes on Ray, each with its own codecs; 0: this process alone")
    cpus_per_worker: int = setting(1, "threads of each process; another number may change the last bits of latents")
    gpus_per_worker: float = setting(0.0, "GPUs of each process on Ray; 0.5 lets two processes share one")
    shard: str | None = setting(
        None,
        "'0/4' makes every fourth part (32 rows or more) of the dataset, from the first on, and '1/4' those after "
        "them: one call per machine, all with one --output on a shared disk. The call that makes the last missing "
        "part finishes the dataset. Without a shared disk, copy all machines' output into one folder and call without "
        "--shard",
    )
    max_failed: int = setting(0, "failed rows with which the command still exits with 0; failures.parquet lists them")
    retry_failed: bool = setting(False, "retry the rows in failures.parquet, after repairing their files")
    check: int = setting(0, "random rows to decode from the finished dataset into check/, for inspection")
    dry_run: bool = setting(False, "check the input, print the plan, and stop")

    def __post_init__(self) -> None:
        if not self.output:
            raise ValueError("output is empty: set --output.")
        least = {"num_workers": 0, "cpus_per_worker": 1, "gpus_per_worker": 0, "max_failed": 0, "check": 0}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least {value}.")
        if self.shard is not None and self.retry_failed:
            raise ValueError("retry_failed reopens the whole dataset, but shard is set: use it without shard.")
        _ = self.shard_numbers

    @property
    def folder(self) -> Path:
        return Path(self.output)

    @property
    def shard_numbers(self) -> tuple[int, int]:
        """The index of the shard and the number of shards; (0, 1) for the whole."""
        match = re.fullmatch(r"(\d+)/(\d+)", self.shard or "0/1")
        if match is None or not int(match[1]) < int(match[2]):
            raise ValueError(f"shard is {self.shard!r}: give its number and how many there are, from '0/4' to '3/4'.")
        return int(match[1]), int(match[2])

    def own(self, starts: Sequence[int]) -> list[int]:
        """Return the parts that this call makes."""
        index, count = self.shard_numbers
        return list(starts)[index::count]

    @property
    def torch_device(self) -> str:
        return self.device or ("cuda" if self.num_workers and self.gpus_per_worker else "cpu")

    @property
    def resolved_model(self) -> str:
        """The model as an absolute path or preset, for processes with another working directory."""
        return self.model if self.model in PRESETS else str(Path(self.model).resolve())


@dataclass(frozen=True)
class PrepareConfig(PrepareOptions):
    """Settings of the command."""

    clips: str = setting(
        "",
        "needed: CSV, JSONL or Parquet table with the columns path and text (or video_path and prompt), and if you "
        "have them audio_path, audio_text, num_frames, height, width, fps; or a folder of media files with captions in "
        "<name>.txt beside them",
    )
    buckets: dict | None = field(
        default=None,
        metadata={
            "help": "sizes and lengths in frames to cut clips to, as '{240p: {33: {batch_size: 12, keep: 1.0, time: "
            "0.4}}}', or with a size of your own '{64x64: {33: {batch_size: 16}}}'. keep is the share of the clips "
            "that fill a bucket which it keeps, time the chance that a clip is measured against its length; "
            "batch_size is for training from files. By default the model's own size and length"
        },
    )
    audio_only: bool = setting(False, "encode only the sound, for stage 1; clips then need no picture")
    audio_fps: float = setting(24.0, "with audio_only: frames of a bucket per second (published 24)")
    seed: int = setting(42, "seed of the buckets, of the window cut from a longer clip, and of the clips to decode")

    def __post_init__(self) -> None:
        if not self.clips:
            raise ValueError("clips is empty: set --clips.")
        super().__post_init__()
        if not self.audio_fps > 0:
            raise ValueError(f"audio_fps is {self.audio_fps}, but must be positive.")

    @property
    def recorded(self) -> dict[str, Any]:
        """The settings that decide the rows, as JSON values."""
        values = config_to_dict(self)
        return {name: values[name] for name in ROW_SETTINGS}

    def row_settings(self) -> RowSettings:
        """Return the settings for the processes that make rows, with absolute paths."""
        values = {name: getattr(self, name) for name in ROW_SETTINGS} | {"model": self.resolved_model}
        return RowSettings(**values, clips=str(Path(self.clips).resolve()), device=self.torch_device)
