"""The worker processes of a stage: Ray actors that are set up, watched, and replaced when they die.

Ray Data's pool of actors is not used: in Ray 2.60 it never replaces a dead actor, so that a run of days ends on the few
workers that lost nodes leave, while new nodes are idle.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import dropwhile
from types import TracebackType
from typing import Any, Self

from jobs.stops import WorkerStartError

Job = dict[str, Any]
Result = dict[str, Any]

MAX_FAILED_STARTS = 3  # in a row, with no worker left
MAX_FAILED_STARTS_OF_MANY = 9  # in a row, with other workers that wait for room or load, but none set up
MAX_PAUSE_S = 60.0  # between starts that fail
POLL_S = 5.0
PATIENCE_S = 120.0  # without a worker, before a warning
SILENCE_S = 1800.0  # without a result of a worker, before a warning
MAX_REASON_CHARS = 1000

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pool:
    """Size of a worker pool: the number of actors, and the resources and batch size of each."""

    num_actors: int  # at the start, and the minimum
    max_actors: int  # while the work and the cluster's room suffice
    num_cpus: float  # per actor
    num_gpus: float  # per actor, fractions allowed
    batch_size: int  # jobs per task
    max_tries: int


@dataclass(frozen=True)
class Loss:
    """A lost worker, with the jobs of its batch that have no result."""

    jobs: list[Job]  # the first one was running
    batch_size: int
    node: str | None  # the worker's; None while Ray does not know whether the node is lost as well
    error: str | None  # message of the exception that the actor raised, if its process did not die


@dataclass(eq=False)
class _Worker:
    handle: Any
    awaited: Any  # reference that the driver waits for: the end of the setup, then the stream of results
    node: str | None = None  # None until it is set up
    batch: list[Job] = field(default_factory=list)
    num_results: int = 0
    place: str = ""  # process and host, for messages
    heard: float = 0.0  # monotonic time of the start of its batch, or of its last result
    patience_s: float = 0.0  # time without a result before the next warning

    def note_heard(self) -> None:
        self.heard, self.patience_s = time.monotonic(), SILENCE_S

    @property
    def is_idle(self) -> bool:
        return self.awaited is None


class Crew:
    """Pool of workers that run `actor(settings)`, as many as the jobs can use; stopped when the block ends."""

    def __init__(self, actor: type, settings: dict[str, Any], pool: Pool) -> None:
        import ray

        self._actor, self._settings, self._pool = actor, settings, pool
        # The driver accounts for rows and files, so Ray must not repeat anything by itself.
        self._runner: Any = ray.remote(
            num_cpus=pool.num_cpus,
            num_gpus=pool.num_gpus,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )(_Runner)
        self._workers: list[_Worker] = []  # in the order of their last messages
        self._has_started = False
        self._failed_starts = 0
        self._num_lost_nodes = _num_lost_nodes()
        self._start_after = 0.0
        self._last_at_work = time.monotonic()
        self._patience_s = PATIENCE_S

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            self._kill(worker)

    def staff(self, num_waiting: int) -> None:
        """Start workers up to `num_actors`; while all are busy and batches wait, double them up to `max_actors`."""
        if time.monotonic() < self._start_after:
            return
        num_busy = sum(bool(worker.batch) for worker in self._workers)
        size, useful = len(self._workers), num_busy + num_waiting
        wanted = min(self._pool.num_actors, useful)
        if size == num_busy:
            wanted = max(wanted, min(2 * size, self._pool.max_actors, useful))
        for _ in range(wanted - size):
            handle = self._runner.remote(self._actor, self._settings, max(1, int(self._pool.num_cpus)))
            self._workers.append(_Worker(handle, handle.place.remote()))

    def give(self, batch: Sequence[Job]) -> bool:
        """Give a batch to an idle worker; return False when there is none."""
        worker = next((worker for worker in self._workers if worker.is_idle), None)
        if worker is None:
            return False
        worker.batch, worker.num_results = list(batch), 0
        worker.note_heard()
        worker.awaited = worker.handle.run.options(num_returns="streaming").remote(worker.batch)
        return True

    def wait(self) -> Result | Loss | None:
        """Return the next result or loss; None when there is neither yet, or a worker has become idle.

        Raises:
            WorkerStartError: no worker could be set up.
        """
        import ray

        awaited = {worker.awaited: worker for worker in self._workers if not worker.is_idle}
        pause_s = self._start_after - time.monotonic()
        timeout_s = min(POLL_S, pause_s) if pause_s > 0 else POLL_S
        if not awaited:
            time.sleep(timeout_s)
            return None
        ready, _ = ray.wait(list(awaited), num_returns=1, timeout=timeout_s, fetch_local=False)
        self._warn_if_none_works()
        self._warn_of_silence()
        if not ready:
            return None
        worker = awaited[ready[0]]
        self._workers.remove(worker)
        self._workers.append(worker)  # so that a quick worker cannot delay the results of others
        if worker.batch:
            return self._next_result(worker)
        self._take_start(worker)
        return None

    def _take_start(self, worker: _Worker) -> None:
        import ray

        try:
            worker.node, worker.place = ray.get(worker.awaited)
        except ray.exceptions.RayError as error:
            self._dismiss(worker)
            self._note_failed_start(error)
        else:
            worker.awaited = None
            self._has_started, self._failed_starts = True, 0

    def _note_failed_start(self, error: Any) -> None:
        """Schedule another start after a pause, perhaps on another node; after too many failures in a row, give up.

        Failures do not count while other workers run, or when a node was lost.
        """
        is_mistaken = getattr(error, "actor_init_failed", False) and not self._has_started
        num_at_work = sum(worker.node is not None for worker in self._workers)
        now, lost_before, self._num_lost_nodes = time.monotonic(), self._num_lost_nodes, _num_lost_nodes()
        if now >= self._start_after:  # starts that fail together have one cause
            self._failed_starts += self._num_lost_nodes == lost_before
            pause_s = min(MAX_PAUSE_S, 2.0 ** min(self._failed_starts - 1, 10))
            self._start_after = now + pause_s
            if (
                not is_mistaken and self._failed_starts.bit_count() == 1
            ):  # at 1, 2, 4, 8, ...: failures may continue for days
                logger.warning(
                    "A worker could not be set up (%s). Trying again in %g s; %d workers are running.",
                    *(_reason(error), pause_s, num_at_work),
                )
        most = MAX_FAILED_STARTS_OF_MANY if self._workers else MAX_FAILED_STARTS
        if is_mistaken or (num_at_work == 0 and self._failed_starts >= most):
            raise WorkerStartError(
                f"{self._actor.__name__} could not be set up in its worker: {_reason(error)}. Correct the setting "
                "it names, or give the worker more memory or GPU."
            ) from error

    def _next_result(self, worker: _Worker) -> Result | Loss | None:
        import ray

        try:
            result = ray.get(next(worker.awaited))
        except StopIteration:
            assert worker.num_results == len(worker.batch), "every job of a batch has a result, or the worker is lost"
            worker.batch, worker.awaited = [], None
            return None
        except ray.exceptions.RayError as error:
            self._dismiss(worker)
            return Loss(
                jobs=worker.batch[worker.num_results :],
                batch_size=len(worker.batch),
                node=worker.node if _is_certain(error) else None,
                error=_reason(error) if isinstance(error, ray.exceptions.RayTaskError) else None,
            )
        worker.num_results += 1
        worker.note_heard()
        return result

    def _dismiss(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        self._kill(worker)

    def _kill(self, worker: _Worker) -> None:
        import ray

        if ray.is_initialized():
            ray.kill(worker.handle)

    def _warn_if_none_works(self) -> None:
        """Warn when no worker runs: the cluster is too small or gone, and the run waits for it."""
        import ray

        now = time.monotonic()
        if any(worker.node for worker in self._workers):
            self._last_at_work, self._patience_s = now, PATIENCE_S
        elif now - self._last_at_work > self._patience_s:
            self._patience_s *= 2
            whole, free = ray.cluster_resources(), ray.available_resources()
            needs = {"CPU": self._pool.num_cpus, "GPU": self._pool.num_gpus}
            states = [f"{free.get(name, 0):g} of {whole.get(name, 0):g} {name} free" for name in needs]
            logger.warning(
                "No worker of %d is set up after %d s: each needs %g CPU and %g GPU, and the cluster has %s. Waiting "
                "for room, for nodes that join, or for models to load.",
                len(self._workers),
                now - self._last_at_work,
                *needs.values(),
                " and ".join(states),
            )

    def _warn_of_silence(self) -> None:
        """Warn of workers without a result for long: only a person can distinguish a hanging worker from a slow one."""
        now = time.monotonic()
        for worker in self._workers:
            if worker.num_results < len(worker.batch) and now - worker.heard > worker.patience_s:
                worker.patience_s *= 2
                logger.warning(
                    "A worker (%s) has been at %r for %d min. If it hangs, kill it: its job is then tried again.",
                    *(worker.place, worker.batch[worker.num_results]["key"], (now - worker.heard) / 60),
                )


class _Runner:
    """Ray actor that runs the actor of a stage in the worker process."""

    def __init__(self, actor: type, settings: dict[str, Any], num_threads: int) -> None:
        os.environ["OMP_NUM_THREADS"] = str(num_threads)  # torch reads it when it is first imported, by the actor
        self._actor = actor(settings)

    def place(self) -> tuple[str, str]:
        """Return the id of the node, and the process and host as text."""
        import ray

        return ray.get_runtime_context().get_node_id(), f"process {os.getpid()} on {socket.gethostname()}"

    def run(self, jobs: list[Job]) -> Iterator[Result]:
        results = self._actor.run_all(jobs) if hasattr(self._actor, "run_all") else map(self._actor.run, jobs)
        for result in results:
            yield result
            if "no_space" in result:  # the other jobs would fail as well
                return


def _is_certain(error: Exception) -> bool:
    """Return whether Ray knows that the worker died. It does not while the node is silent, or lost with a result."""
    import ray

    return not isinstance(error, ray.exceptions.ActorUnavailableError | ray.exceptions.ObjectLostError)


def live_nodes() -> set[str]:
    """Return the ids of the nodes that Ray considers alive."""
    import ray

    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _num_lost_nodes() -> int:
    import ray

    return sum(not node["Alive"] for node in ray.nodes())


def _reason(error: Exception) -> str:
    """Return the worker's exception from the traceback in Ray's message, else the last line of the message."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    frames = [number for number, line in enumerate(lines) if line.startswith('  File "')]
    raised = dropwhile(lambda line: line.startswith(" "), lines[frames[-1] + 1 :] if frames else lines[-1:])
    return " ".join(map(str.strip, raised)).rstrip(".")[:MAX_REASON_CHARS]
