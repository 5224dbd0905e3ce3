"""Score every candidate with one or more rewards: candidates table in, scores table out.

    python -m pipeline.score --output_dir runs/first --rewards verifiable

Incremental: a score is kept under (candidate, reward name, reward version, weights), so another reward, a new version
of one, other weights, another protocol, or more candidates cost only what is missing, and no column mixes two of them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from functools import partial

from core.cli import StageSummary
from core.schema import SCORES, write_table
from jobs.estimate import describe_failures, describe_pace, measure, warm_up_jobs, warm_up_pool
from jobs.stage import finish, hold, plan_line, progress_bar, run_command
from jobs.workers import map_jobs
from pipeline.score.actor import ScoreActor
from pipeline.score.config import ScoreConfig
from pipeline.score.work import ScoreWork


def score(config: ScoreConfig) -> StageSummary:
    """Run the stage: compute missing scores, then write scores.parquet, failures.parquet and summary.json.

    Raises:
        ValueError: there is no candidates table, a reward or its weights are not found, two rewards give the same
            column, or another run is using the folder.
        StageStoppedError: a reward cannot be loaded, or the disk is full.
    """
    started = time.perf_counter()
    with hold(config.folder):
        work = ScoreWork(config)
        skipped = len(work.wanted) - work.num_left
        with work.journal, progress_bar("score", len(work.wanted), skipped) as bar:
            for names, jobs in work.batches():
                for result in map_jobs(jobs, ScoreActor, work.actor_settings(names), config.pool):
                    bar.update(work.take(result, names))
                    bar.set_postfix(failed=len(work.failures), refresh=False)
        write_table(work.table(), SCORES, config.folder / "scores.parquet")
        return finish(
            "score",
            config.folder,
            config,
            started=started,
            wanted=len(work.wanted),
            done=work.num_done,
            skipped=skipped,
            failures=[work.failures[key] for key in work.wanted if key in work.failures],
            versions={f"reward {spec}": chosen.version for spec, chosen in work.rewards.items()},
        )


def plan(config: ScoreConfig) -> str:
    """Describe in one line what a run would do."""
    work = ScoreWork(config)
    return plan_line("score", len(work.wanted), len(work.wanted) - work.num_left, config.folder)


def estimate(config: ScoreConfig) -> str:
    """Score a few prompts, keep their scores, and return a line per pool that estimates the rest. Raises as `score`.

    Disk space is not estimated: scoring writes some hundred bytes per candidate and reward.
    """
    with hold(config.folder):
        work = ScoreWork(config)
        pool = warm_up_pool(config.pool)
        lines = []
        with work.journal:
            for names, jobs in work.batches():
                few = warm_up_jobs(jobs, pool)
                results = map_jobs(few, ScoreActor, work.actor_settings(names), pool)
                pace = measure(results, partial(work.take, names=names), pool)
                left = sum(len(job["candidates"]) for job in jobs[len(few) :])
                what = f"score with {', '.join(names)}: {left} candidates left"
                lines.append(f"{what}; {describe_pace(pace, len(jobs) - len(few), config.pool)}")
        if work.failures:
            lines.append(f"score: {describe_failures(work.failures)}")
        return "\n".join(lines) or "score: nothing is left to do"


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(ScoreConfig, plan, estimate, score, argv)


if __name__ == "__main__":
    sys.exit(main())
