"""The Ray worker that writes parts of a prepared dataset, and the pool of such workers.

A job is one part. When a worker dies, the pool gives its part to another worker, which reads from the files beside the
part how many workers died on which row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from core.devices import is_device_lost, limit_threads
from jobs.stops import WorkerStartError, is_full_disk
from jobs.workers import Pool, map_jobs
from model.prepare.encoder import EncoderSettings, load_encoder
from model.prepare.parts import Parts

if TYPE_CHECKING:
    from jobs.workers import Job, Result

MAX_DEATHS = 2  # of processes on one row, after which the row becomes a failure


def write_parts(
    parts: Parts, starts: Sequence[int], settings: EncoderSettings, num_workers: int, num_cpus: int, num_gpus: float
) -> Iterator[int]:
    """Write parts on a pool of Ray workers and yield the start of each one when it is finished.

    A row on which processes die becomes a failure. Paths must mean the same on all machines of the cluster.

    Raises:
        ValueError: a mistake in the settings, an unwritable file, or workers that die before their first row.
        NoSpaceError: the disk is full.
    """
    for start in starts:
        parts.forget_deaths(start)  # of an earlier run
    max_tries = MAX_DEATHS * (parts.rows_per_part + 1) + 1  # the actor gives rows up long before
    pool = Pool(num_workers, num_workers, num_cpus, num_gpus, batch_size=1, max_tries=max_tries)
    jobs = [{"key": f"rows {start} to {parts.rows(start)[-1]}", "start": start} for start in starts]
    actor_settings = {"folder": str(parts.folder), "parts": parts, "encoder": settings, "num_threads": num_cpus}
    try:
        for result in map_jobs(jobs, PartActor, actor_settings, pool):
            if reason := result.get("error") or result.get("lost"):
                raise ValueError(f"A worker failed: {reason}")
            yield result["start"]
    except WorkerStartError as error:
        raise ValueError(str(error)) from error


class PartActor:
    """Writes parts with an encoder of its own, which loads the model for the first part.

    Settings: folder, parts, encoder (its settings), num_threads.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        import torch  # noqa: F401  # late: the driver needs no model

        limit_threads(settings["num_threads"])
        self._parts: Parts = settings["parts"]
        self._encoder = load_encoder(settings["encoder"])

    def run(self, job: Job) -> Result:
        """Write the part that begins at row `start`. A result with an "error" ends the run.

        An error of the GPU itself is raised, so that the worker is replaced; the row counts as one that killed it.
        """
        start = job["start"]
        try:
            self._encoder.write_part(self._parts, start, given_up=_rows_to_give_up(self._parts, start))
        # Boundary to models and files that are not ours: the driver ends the run with the reason.
        except Exception as error:
            if is_device_lost(error):
                raise
            if is_full_disk(error):
                return job | {"no_space": str(error)}
            return job | {"error": str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"}
        self._parts.forget_deaths(start)
        return job


def _rows_to_give_up(parts: Parts, start: int) -> list[int]:
    """Record that a process takes the part up; return the rows on which `MAX_DEATHS` processes have died.

    Raises:
        ValueError: processes die before they reach a row, or on a row that was given up.
    """
    deaths = parts.record_attempt(start)
    given_up = sorted(row for row, count in deaths.items() if row is not None and count >= MAX_DEATHS)
    if deaths[None] >= MAX_DEATHS or any(deaths[row] > MAX_DEATHS for row in given_up):
        raise ValueError(
            f"{deaths.total()} workers died on the part of row {start} before they read a clip (crash, or out of "
            "memory). Give them more memory or GPU, or use fewer."
        )
    return given_up
