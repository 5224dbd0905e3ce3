"""The settings of `python -m evaluation.run`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from evaluation.judges.metrics import GROUP_TITLES, METRICS, choose_metrics
from jobs.stage import WorkerConfig, setting
from rewards.base import Protocol


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(WorkerConfig):
    """Settings of `python -m evaluation.run`."""

    samples: Path = field(
        metadata={
            "help": "output_dir of pipeline.sample; or a folder with sample_0000.mp4, sample_0000.wav, ..., whose "
            "numbers are rows of the benchmark, from 0."
        }
    )
    benchmark: Path = field(
        metadata={
            "help": "Table of captions, and of ground-truth clips where it has any: JavisBench.csv, "
            "JavisBench-mini.csv, or any prompts table (.csv, .jsonl, .parquet)."
        }
    )
    output: Path | None = field(default=None, metadata={"help": "Folder of the results; default <samples>/evaluation."})
    metrics: list[str] = field(
        default_factory=lambda: ["all"],
        metadata={
            "help": f"Names or groups of metrics. Groups: all, {', '.join(GROUP_TITLES)} (of Bounce, not in all). "
            f"Names: {', '.join(metric.name for metric in METRICS)}."
        },
    )
    weights: str | None = field(
        default=None,
        metadata={
            "help": "Folder that model.fetch filled, or 'tiny' for the presets of the rewards. A metric whose weights "
            "are not there is skipped and named."
        },
    )
    protocol: Protocol = field(
        default="correct",
        metadata={
            "help": "correct, or javisbench: as the release measures, defects included, to compare with its paper."
        },
    )
    ground_truth_features: Path | None = field(
        default=None,
        metadata={
            "help": "Features of the ground truth in place of its clips: the release's .pt file (protocol javisbench), "
            "or an .npz file with `video` (of I3D) and `audio` (of AudioCLIP), a row per clip."
        },
    )
    cache: Path | None = field(
        default=None,
        metadata={"help": "Folder of what was computed per clip; runs may share it. Default <output>/cache."},
    )
    group_by: list[str] = field(
        default_factory=list,
        metadata={"help": "Columns of the benchmark to break results down by, besides the published cat0_ind, ..."},
    )
    limit: int | None = setting(None, "Evaluate only this many first rows of the benchmark.")
    batch_size: int = setting(1, "Maximum number of clip batches in one task of a worker.")
    max_tries: int = setting(3, "Tries of a batch of clips that kills its worker, before each clip is tried alone.")
    max_failures: int = setting(
        0,
        "Samples, captions and ground-truth clips that fail or are missing with which the command still exits with 0.",
    )
    estimate: bool = setting(False, "Not available in this stage: give limit, and multiply.")
    dry_run: bool = setting(False, "Print what is missing, skipped and left to compute; write nothing.")
    dtype: str = setting("float32", "Type of the networks' weights, e.g. bfloat16.")
    clip_batch_size: int = setting(8, "Clips that a network is given at once.")
    num_decoders: int = setting(2, "Threads per worker that decode the next clips while others are measured.")
    num_bootstrap: int = setting(2000, "Resamples of the benchmark's rows for the 95 % intervals.")
    seed: int = setting(0, "Seed of the resampling.")
    title: str = setting("Evaluation", "Heading of the page.")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("clip_batch_size", 1), ("num_decoders", 1), ("num_bootstrap", 100)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least {least}.")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit is {self.limit}: give at least 1 row, or leave it out.")
        if self.estimate:
            raise ValueError("estimate is of sampling and scoring: here give limit, and multiply.")
        choose_metrics(self.metrics)

    @property
    def folder(self) -> Path:
        return self.samples / "evaluation" if self.output is None else self.output

    @property
    def cache_folder(self) -> Path:
        return self.folder / "cache" if self.cache is None else self.cache
