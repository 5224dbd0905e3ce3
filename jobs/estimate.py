"""Estimates of time and disk space for `--estimate`, from a few of a stage's jobs, whose rows are kept."""

from __future__ import annotations

import dataclasses
import math
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.storage import is_local
from jobs.workers import Job, Pool, Result

JOBS_PER_ACTOR = 3  # the first one includes late loading and is not timed


@dataclass(frozen=True)
class Pace:
    """Start-up time and speed of a pool."""

    start_s: float  # until the first jobs could begin, models loaded
    job_s: float  # between two jobs of the whole pool


def warm_up_pool(pool: Pool) -> Pool:
    """Return the pool to measure: of fixed size, with one job per batch."""
    return dataclasses.replace(pool, max_actors=pool.num_actors, batch_size=1)


def warm_up_jobs(jobs: Sequence[Job], pool: Pool) -> list[Job]:
    """Return enough jobs to measure the pool with, or all."""
    return list(jobs[: JOBS_PER_ACTOR * pool.num_actors])


def measure(results: Iterable[Result], take: Callable[[Result], Any], pool: Pool) -> Pace | None:
    """Pass the results of jobs to `take` and time them; return None where an actor had no second job."""
    started = time.perf_counter()
    ends = []
    for result in results:
        take(result)
        ends.append(time.perf_counter() - started)
    num_timed = len(ends) - pool.num_actors
    if num_timed <= 0:
        return None
    begun = ends[pool.num_actors - 1]
    job_s = (ends[-1] - begun) / num_timed
    return Pace(start_s=max(0.0, begun - pool.num_actors * job_s), job_s=job_s)


def describe_pace(pace: Pace | None, num_jobs: int, pool: Pool) -> str:
    """Return the time for so many jobs with the smallest and the largest size of the pool, as text."""
    if pace is None:
        return "too few prompts were left to estimate the time of more"
    sizes = dict.fromkeys((pool.num_actors, pool.max_actors))
    times = {size: pace.start_s + pace.job_s * num_jobs * pool.num_actors / size for size in sizes}
    total = " or ".join(f"{describe_seconds(seconds)} on {size} worker(s)" for size, seconds in times.items())
    return f"about {total} ({describe_seconds(pace.start_s)} to start, then {pace.job_s:.3g} s per prompt)"


def describe_failures(failures: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the number of failed jobs and the first reason; the time of failed jobs gives no estimate."""
    key, first = next(iter(failures.items()))
    return f"FAILED: {len(failures)} of those that were tried, the first being {key!r} ({first['error']})"


def describe_space(bytes_each: float, num_candidates: int, folder: Path) -> str:
    """Return the space that so many candidates need and, on a disk, the free space, as text."""
    wanted, each = bytes_each * num_candidates, describe_bytes(bytes_each)
    if not is_local(folder):
        return f"about {describe_bytes(wanted)} in {folder} ({each} per candidate)"
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    short = ", which is NOT ENOUGH" if wanted > free else ""
    return f"about {describe_bytes(wanted)} of disk ({each} per candidate; {describe_bytes(free)} are free{short})"


def describe_seconds(seconds: float) -> str:
    """Return a duration as text, such as `45 s`, `12 min`, `5 h 20 min`, `3 d 4 h`."""
    if seconds < 60:
        return f"{math.ceil(seconds)} s"
    minutes = math.ceil(seconds / 60)
    hours, days = minutes // 60, minutes // (24 * 60)
    if hours == 0:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60} min" if days == 0 else f"{days} d {hours % 24} h"


def describe_bytes(number: float) -> str:
    """Return a size in decimal units, such as `512 B`, `1.2 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.4g} TB"
