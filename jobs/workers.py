"""Jobs on a pool of Ray actors, whose results come to the driver as they finish.

A job and its result are dicts that JSON can hold; both carry a "key" that is unique in the call.
"""

from __future__ import annotations

import logging
import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Any

from core.storage import storage_path
from jobs.crew import Crew, Job, Loss, Pool, Result, live_nodes
from jobs.stops import NoSpaceError

__all__ = ["Job", "Pool", "Result", "ensure_ray", "map_jobs", "start_local_ray"]

START_TRIES = 3
LOCAL_OBJECT_STORE_BYTES = 256 * 2**20  # rows are small: media travel by path
MAX_DEATHS = 10  # of workers on one job, with their nodes: a job hardly causes one such loss, but may cause many

_DIED_ON_IT = "the worker process died on it each time (crash, or out of memory)"


def map_jobs(jobs: Sequence[Job], actor: type, settings: dict[str, Any], pool: Pool) -> Iterator[Result]:
    """Yield the result of every job, in the order of finishing.

    Args:
        actor: class set up once per process as `actor(settings)`. Its `run(job) -> Result` raises only when the
            process is unusable: the worker is then replaced, and the job tried again. An actor may have
            `run_all(jobs)` instead, which yields their results in order and may prepare jobs in advance.
        settings: plain values.

    A job whose result has "retry" true, or whose worker died while it ran, is tried `max_tries` times. The last result
    is then yielded unchanged, or as {"key": ..., "lost": reason} after a death. Every result gets "tries". Jobs that
    only waited for a dead worker, or whose node was lost, run again without counting a try.

    A result with "no_space" (the message of the failed write) is yielded with its rows and ends the run.

    Raises:
        WorkerStartError: an actor could not be set up.
        NoSpaceError: the disk of `settings["folder"]` is full.
    """
    docket = _Docket(jobs, pool)
    if docket.num_left == 0:
        return
    ensure_ray()
    with Crew(actor, settings, pool) as crew:
        while docket.num_left:
            crew.staff(len(docket.waiting))
            while docket.waiting and crew.give(docket.waiting[0]):
                docket.waiting.popleft()
            news = crew.wait()
            result = docket.settle_loss(news) if isinstance(news, Loss) else news and docket.settle(news)
            if result is None:
                continue
            no_space = result.pop("no_space", None)
            yield result
            if no_space:
                raise NoSpaceError(storage_path(settings["folder"]), no_space)


class _Docket:
    """The waiting jobs, in batches, and the tries of each job. Every job ends with one result."""

    def __init__(self, jobs: Sequence[Job], pool: Pool) -> None:
        size = max(1, min(pool.batch_size, -(-len(jobs) // pool.num_actors)))  # so that every worker gets jobs
        self.waiting = deque(list(jobs[start : start + size]) for start in range(0, len(jobs), size))
        self._left = {job["key"]: job for job in jobs}
        assert len(self._left) == len(jobs), "job keys are unique"
        self._max_tries = pool.max_tries
        self._num_results: Counter[str] = Counter()
        self._deaths: dict[str, list[str | None]] = {}  # the nodes of the workers that died on a job

    @property
    def num_left(self) -> int:
        return len(self._left)

    def settle(self, result: Result) -> Result | None:
        """Return a final result; None when its job is tried again."""
        key = result["key"]
        self._num_results[key] += 1
        if result.pop("retry", False) and self._num_tries(key) < self._max_tries:
            self.waiting.append([self._left[key]])
            return None
        return self._end(result)

    def settle_loss(self, loss: Loss) -> Result | None:
        """Queue a lost worker's jobs again; return the result of the running one if it is given up."""
        if not loss.jobs:
            return None
        job, *others = loss.jobs
        if others:
            self.waiting.appendleft(others)
        # In a batch, a job that was prepared in advance may have killed the worker; alone, it is this one.
        if loss.batch_size == 1:
            key = job["key"]
            self._deaths.setdefault(key, []).append(loss.node)
            if self._num_tries(key) >= self._max_tries:
                return self._end({"key": key, "lost": loss.error or _DIED_ON_IT})
            if len(self._deaths[key]) == max(MAX_DEATHS, self._max_tries):
                return self._end({"key": key, "lost": f"{len(self._deaths[key])} workers died on it, with their nodes"})
        self.waiting.append([job])
        return None

    def _num_tries(self, key: str) -> int:
        """Return the tries of a job; deaths of workers whose node was lost do not count."""
        deaths = self._deaths.get(key)
        live = live_nodes() if deaths else ()
        return self._num_results[key] + sum(node in live for node in deaths or ())

    def _end(self, result: Result) -> Result:
        key = result["key"]
        del self._left[key]
        return result | {"tries": self._num_tries(key)}


def ensure_ray(shows_workers: bool = False) -> None:
    """Connect to the cluster that RAY_ADDRESS names, else start Ray on this machine; do nothing when Ray is up.

    Ray is shut down when the process ends, so the stages of one process share it.

    Args:
        shows_workers: print on this terminal what the workers print.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # the failures table reports a dead worker
    import ray

    if ray.is_initialized():
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(logging_level=logging.WARNING, log_to_driver=shows_workers)
    else:
        start_local_ray(shows_workers=shows_workers)


def start_local_ray(num_cpus: int | None = None, shows_workers: bool = False) -> None:
    """Start Ray on this machine, even where another cluster runs on it, with `num_cpus` cores (default: all)."""
    import ray

    for attempt in range(1, START_TRIES + 1):
        try:
            ray.init(
                address="local",
                num_cpus=num_cpus,
                include_dashboard=False,
                object_store_memory=LOCAL_OBJECT_STORE_BYTES,
                logging_level=logging.ERROR,
                log_to_driver=shows_workers,
            )
            return
        # Ray gives its processes 30 s to come up, which a busy machine may exceed, and then raises the bare class.
        except Exception as error:
            ray.shutdown()
            if "timed out during startup" not in str(error) or attempt == START_TRIES:
                raise
