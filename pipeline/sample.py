"""Sample candidates for every prompt, and bring its ground truth to their form: prompts table in, candidates table out.

    python -m pipeline.sample --prompts prompts.parquet --output_dir runs/first --model tiny

The unit of work is a prompt with all its candidates. A candidate is done when the journal has its row and its files
exist; a restart makes the rest, with the same seeds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from media.cli import StageSummary
from media.storage import StoragePath
from pipeline.actors import SampleActor
from pipeline.estimate import describe_failures, describe_pace, measure, warm_up_jobs, warm_up_pool
from pipeline.sample_work import SampleWork
from pipeline.schema import CANDIDATES, write_table
from pipeline.stage import WorkerConfig, finish, hold, plan_line, progress_bar, run_command, setting
from pipeline.workers import map_jobs


@dataclass(frozen=True, kw_only=True)
class SampleConfig(WorkerConfig):
    """Settings of `python -m pipeline.sample`. None leaves a value to the model's own default."""

    prompts: StoragePath = field(
        metadata={"help": "Prompts table: CSV, JSONL or Parquet; its paths are relative to its folder."}
    )
    output_dir: StoragePath = field(metadata={"help": "Folder of the run; candidates/ is written in it."})
    model: str = setting("tiny", "Preset name, model or adapter folder, or package.module:callable.")
    num_candidates: int = setting(3, "Candidates per prompt.")
    include_ground_truth: bool = setting(True, "Add each prompt's real clip (video_path), in the candidates' form.")
    seed: int = setting(0, "Run seed; a candidate's seed is a function of it, the prompt_id and the index.")
    num_frames: int | None = setting(None, "Frames per clip.")
    height: int | None = setting(None, "Pixels.")
    width: int | None = setting(None, "Pixels.")
    num_inference_steps: int | None = setting(None, "Solver steps.")
    guidance_scale: float | None = setting(None, "Classifier-free guidance.")
    negative_prompt: str | None = setting(None, "Text to steer away from.")
    dtype: str = setting("float32", "Type of the network's weights, e.g. bfloat16.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_candidates < 1:
            raise ValueError(f"num_candidates is {self.num_candidates}, but must be at least 1.")

    @property
    def options(self) -> dict[str, Any]:
        """What the generator is called with besides prompts and seeds."""
        names = ("num_frames", "height", "width", "num_inference_steps", "guidance_scale", "negative_prompt")
        return {name: getattr(self, name) for name in names}

    @property
    def folder(self) -> Path:
        return self.output_dir / "candidates"


def sample(config: SampleConfig) -> StageSummary:
    """Run the stage: make what is missing, then write candidates.parquet, failures.parquet and summary.json.

    Raises:
        ValueError: the prompts table is not one, the model is not there, the folder holds results of other settings, or
            another run is at work in it.
        StageStoppedError: the model cannot be loaded, or the disk is full.
    """
    started = time.perf_counter()
    with hold(config.folder):
        work = SampleWork(config)
        skipped = len(work.done)
        with work.journal, progress_bar("sample", len(work.wanted), skipped) as bar:
            for result in map_jobs(work.jobs, SampleActor, work.actor_settings(), config.pool):
                bar.update(work.take(result))
                bar.set_postfix(failed=len(work.failures), refresh=False)
        write_table(work.table(), CANDIDATES, config.folder / "candidates.parquet")
        return finish(
            "sample",
            config.folder,
            config,
            started=started,
            wanted=len(work.wanted),
            done=len(work.done),
            skipped=skipped,
            failures=[work.failures[key] for key in work.wanted if key in work.failures],
            versions={"model": work.settings["model"]},
        )


def plan(config: SampleConfig) -> str:
    """What a run would do, as one line, and the disk it will need, told by what there is."""
    work = SampleWork(config)
    line = plan_line("sample", len(work.wanted), len(work.done), config.folder)
    return f"{line}; {work.describe_space()}" if work.done and work.jobs else line


def estimate(config: SampleConfig) -> str:
    """Sample a few prompts, whose rows are kept, and tell what the rest will take, as one line. Raises as `sample`."""
    with hold(config.folder):
        work = SampleWork(config)
        if not work.jobs:
            return "sample: nothing is left to do"
        pool = warm_up_pool(config.pool)
        few = warm_up_jobs(work.jobs, pool)
        with work.journal:
            pace = measure(map_jobs(few, SampleActor, work.actor_settings(), pool), work.take, pool)
        left = len(work.wanted) - len(work.done)
        parts = [f"sample: {left} candidates left", describe_pace(pace, len(work.jobs) - len(few), config.pool)]
        if work.done:
            parts.append(work.describe_space())
        if work.failures:
            parts.append(describe_failures(work.failures))
        return "; ".join(parts)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(SampleConfig, plan, estimate, sample, argv)


if __name__ == "__main__":
    sys.exit(main())
