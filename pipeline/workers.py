"""Run jobs on a pool of Ray actors and hand their results to the driver as they finish.

A job and its result are dicts that JSON can hold; both carry a "key" that is unique in the call. They travel as JSON
text in a one-column block, so no Arrow schema has to be guessed from whatever a prompt holds.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import uuid
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.stops import NoSpaceError, WorkerStartError

Job = dict[str, Any]
Result = dict[str, Any]

START_TRIES = 3
LOCAL_OBJECT_STORE_BYTES = 256 * 2**20  # rows are small: media travel by path

_DIED_ON_IT = "the worker process died on it each time (crash, out of memory, or a lost node)"
_DIED_BEFORE_IT = "the worker processes died before they began it (out of memory, or lost nodes)"


@dataclass(frozen=True)
class Pool:
    """How many actors, what each one reserves, and how much it is given at a time."""

    num_actors: int  # at the start, and at least
    max_actors: int  # while there is work for more, and room
    num_cpus: float  # per actor
    num_gpus: float  # per actor, fractions allowed
    batch_size: int  # jobs per task: what a dying worker loses, and what a result waits for
    max_tries: int


def map_jobs(jobs: Sequence[Job], actor: type, settings: dict[str, Any], pool: Pool) -> Iterator[Result]:
    """Yield the result of every job, in the order of finishing.

    Args:
        actor: class set up once per process as `actor(settings)`, whose `run(job) -> Result` must not raise. Where it
            has `run_all(jobs)` instead, an iterator of their results in order, it may prepare a job ahead of its turn.
        settings: plain values.

    A result with "retry" true, and a job that was running when its worker died, is tried `max_tries` times. The first
    then comes as it is, the second as {"key": ..., "lost": reason}; both, as every result, with "tries". Jobs that were
    only waiting for a worker that died are run again at no charge.

    A result with "no_space" (the message of the write that failed) is the last: the rows that it may have come first.

    Raises:
        WorkerStartError: an actor could not be set up.
        NoSpaceError: a worker found the disk full, on which it is writing into `settings["folder"]`.
    """
    left = {job["key"]: job for job in jobs}
    assert len(left) == len(jobs), "job keys are unique"
    tries = dict.fromkeys(left, 0)
    ledger = _start_ledger() if left else None
    idle_passes = 0
    suspects: set[str] = set()
    while left:
        again: set[str] = set()
        num_left = len(left)
        # Several workers may leave several jobs unfinished, and one alone tells which of them it died on.
        crew = dataclasses.replace(pool, num_actors=1, max_actors=1, batch_size=1) if suspects else pool
        chosen = [job for key, job in left.items() if key in suspects or not suspects]
        for result in _one_pass(chosen, actor, settings, crew, ledger):
            key = result["key"]
            tries[key] += 1
            if no_space := result.pop("no_space", None):
                yield result | {"tries": tries[key]}
                raise NoSpaceError(Path(settings["folder"]), no_space)
            if result.pop("retry", False) and tries[key] < pool.max_tries:
                again.add(key)
            else:
                del left[key]
                yield result | {"tries": tries[key]}
        unfinished = _take_running(ledger) & left.keys() - again
        for key in unfinished if crew.max_actors == 1 else ():
            tries[key] += 1
            if tries[key] == pool.max_tries:
                del left[key]
                yield {"key": key, "lost": _DIED_ON_IT, "tries": tries[key]}
        suspects = (suspects | unfinished) & left.keys()
        idle_passes = 0 if unfinished or again or len(left) < num_left else idle_passes + 1
        if idle_passes == pool.max_tries:
            yield from ({"key": key, "lost": _DIED_BEFORE_IT, "tries": tries[key]} for key in left)
            return


def ensure_ray() -> None:
    """Connect to the cluster that RAY_ADDRESS names, else start Ray on this machine; does nothing when Ray is up.

    Ray is shut down when the process ends, so the stages of one process share it.
    """
    # Ray Data's actors always log a C++ "error" that concerns only drivers which drop their arguments; ours does not.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "CRITICAL")  # a dead worker is told by the failures table
    import ray

    if ray.is_initialized():
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(logging_level=logging.WARNING, log_to_driver=False)
    else:
        start_local_ray()


def start_local_ray(num_cpus: int | None = None) -> None:
    """Start Ray on this machine, with all of its cores unless told otherwise, whatever cluster may run here besides."""
    import ray

    for attempt in range(1, START_TRIES + 1):
        try:
            ray.init(
                address="local",
                num_cpus=num_cpus,
                include_dashboard=False,
                object_store_memory=LOCAL_OBJECT_STORE_BYTES,
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
            return
        # Ray gives its processes 30 s to come up, which a busy machine may exceed, and then raises the bare class.
        except Exception as error:
            ray.shutdown()
            if "timed out during startup" not in str(error) or attempt == START_TRIES:
                raise


class _BlockRunner:
    """What Ray Data constructs in each worker: unpacks a block, runs its jobs in order, packs the results."""

    def __init__(self, actor: type, settings: dict[str, Any], ledger: Any, num_threads: int) -> None:
        os.environ["OMP_NUM_THREADS"] = str(num_threads)  # torch reads it when it is first imported, by the actor
        self._actor = actor(settings)
        self._ledger = ledger
        self._name = uuid.uuid4().hex

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        jobs = [json.loads(job) for job in batch["job"]]
        return {"result": [json.dumps(result) for result in self._run(jobs)]}

    def _run(self, jobs: list[Job]) -> Iterator[Result]:
        import ray

        results = self._actor.run_all(jobs) if hasattr(self._actor, "run_all") else map(self._actor.run, jobs)
        for job in jobs:
            ray.get(self._ledger.start.remote(self._name, job["key"]))
            result = next(results)
            yield result
            if "no_space" in result:  # nor would there be for the rest
                return


class _Ledger:
    """A Ray actor that knows which job each worker began last: the one to suspect when the worker dies.

    Without it, whatever waits in a dead worker's queue would look just as guilty.
    """

    def __init__(self) -> None:
        self._running: dict[str, str] = {}

    def start(self, worker: str, key: str) -> None:
        self._running[worker] = key

    def has_begun(self) -> bool:
        return bool(self._running)

    def take(self) -> list[str]:
        running, self._running = list(self._running.values()), {}
        return running


def _start_ledger() -> Any:
    ensure_ray()
    import ray

    return ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Ledger).remote()


def _take_running(ledger: Any) -> set[str]:
    import ray

    return set(ray.get(ledger.take.remote()))


def _has_begun(ledger: Any) -> bool:
    """Whether a worker has begun a job since the last `_take_running`."""
    import ray

    return bool(ray.get(ledger.has_begun.remote()))


def _one_pass(jobs: list[Job], actor: type, settings: dict[str, Any], pool: Pool, ledger: Any) -> Iterator[Result]:
    """Run each job once; those whose worker died yield nothing, nor do those that are left when too many died."""
    import ray
    from ray.data import ActorPoolStrategy

    num_blocks = math.ceil(len(jobs) / pool.batch_size)
    num_actors, max_actors = min(pool.num_actors, num_blocks), min(pool.max_actors, num_blocks)
    # A dead worker costs its block, not the stage; but with none left Ray Data would wait for ever. It counts dead
    # actors among the pool's, so that a pool that can grow may consist of them too, down to its least size.
    _set_up_ray_data(max_errored_blocks=num_actors - 1)
    # One block is one task: left to itself, Ray would put everything into one block, for one actor.
    blocks = ray.data.from_items([{"job": json.dumps(job)} for job in jobs], override_num_blocks=num_blocks)
    dataset = blocks.map_batches(
        _BlockRunner,
        fn_constructor_args=(actor, settings, ledger, max(1, int(pool.num_cpus))),
        batch_size=None,
        compute=ActorPoolStrategy(min_size=num_actors, max_size=max_actors, max_tasks_in_flight_per_actor=1),
        num_cpus=pool.num_cpus,
        num_gpus=pool.num_gpus or None,
        # `map_jobs` decides what is tried again. Ray 2.60 does not replace a dead actor; when it restarts one in place,
        # Ray Data's default, it was seen to hang.
        # Ray 2.60 warns that this argument goes in 2.64, and has no other yet; its default is to retry for ever.
        ray_remote_args_fn=_no_ray_retries,
    )
    try:
        # Without prefetching a result reaches the caller, and so the journal, as soon as its task ends.
        for batch in dataset.iter_batches(batch_size=None, prefetch_batches=0):
            for result in batch["result"]:
                yield json.loads(result)
    except ray.exceptions.RayActorError as error:
        if _has_begun(ledger):  # workers died at work
            return
        raise WorkerStartError(
            f"{actor.__name__} could not be set up in its worker: {_last_line(error)}. Correct the setting it names, "
            "or give the worker more memory or GPU."
        ) from error


def _no_ray_retries() -> dict[str, Any]:
    return {"max_restarts": 0, "max_task_retries": 0}


def _set_up_ray_data(max_errored_blocks: int) -> None:
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False  # the stage shows its own
    context.max_errored_blocks = max_errored_blocks
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0  # all are busy: by default, more than can be
    context.execution_options.preserve_order = False  # a slow prompt must not hold back the rows of finished ones
    warnings.filterwarnings("ignore", message="`ray_remote_args_fn` is deprecated")


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip()
