"""Sample candidates for every prompt, and bring its ground truth to their form: prompts table in, candidates table out.

    python -m pipeline.sample --prompts prompts.parquet --output_dir runs/first --model tiny

The unit of work is a prompt with all its candidates. A candidate is done when the journal has its row and its files
exist; a restart makes the rest, with the same seeds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from core.cli import StageSummary
from core.schema import CANDIDATES, write_table
from jobs.estimate import describe_failures, describe_pace, measure, warm_up_jobs, warm_up_pool
from jobs.stage import finish, hold, plan_line, progress_bar, run_command
from jobs.workers import map_jobs
from pipeline.sample.actor import SampleActor
from pipeline.sample.config import SampleConfig
from pipeline.sample.work import SampleWork


def sample(config: SampleConfig) -> StageSummary:
    """Run the stage: make the missing candidates, then write candidates.parquet, failures.parquet and summary.json.

    Raises:
        ValueError: the prompts table is not valid, the model does not exist, the folder holds results of other
            settings, or another run is using the folder.
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
    """Describe in one line what a run would do and, if candidates exist, the disk space it needs."""
    work = SampleWork(config)
    line = plan_line("sample", len(work.wanted), len(work.done), config.folder)
    return f"{line}; {work.describe_space()}" if work.done and work.jobs else line


def estimate(config: SampleConfig) -> str:
    """Sample a few prompts, keep their rows, and return one line that estimates the rest. Raises as `sample` does."""
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
