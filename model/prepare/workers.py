"""Parts of a prepared dataset made by actors on Ray, each with a model of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, ClassVar, Protocol

from model.prepare.parts import Parts

MAX_DEATHS = 2  # of processes on one clip (or on none), before it is given up


class PartEncoder(Protocol):
    """What makes parts."""

    def write_part(
        self,
        parts: Parts,
        start: int,
        given_up: Collection[int] = (),
        progress: Callable[[int], Any] = lambda _: None,
    ) -> None: ...


class EncoderSettings(Protocol):
    """Plain values that travel to a process, and the class that makes parts by them there, as "module:Class"."""

    encoder: ClassVar[str]


def load_encoder(settings: EncoderSettings) -> PartEncoder:
    """Import the class that the settings name, and make it with them."""
    module, _, name = settings.encoder.partition(":")
    return getattr(import_module(module), name)(settings)


def write_parts(
    parts: Parts, starts: Sequence[int], settings: EncoderSettings, num_workers: int, num_cpus: int, num_gpus: float
) -> Iterator[int]:
    """Writes parts, and yields each as it is finished. A clip on which processes die becomes a failure.

    Paths must mean the same on all machines of the cluster.

    Raises:
        ValueError: a mistake in the settings, or processes that die before they begin.
    """
    ray = _connect()
    # A dead actor is not restarted by Ray: what it was at is looked up first.
    remote = ray.remote(num_cpus=num_cpus, num_gpus=num_gpus, max_restarts=0)(_Worker)
    left, tries = list(reversed(starts)), _Deaths(parts)
    busy: dict[Any, tuple[Any, int]] = {}

    def give(worker: Any) -> None:
        if left:
            start = left.pop()
            busy[worker.write.remote(start, sorted(tries.given_up))] = (worker, start)

    for _ in range(min(num_workers, len(starts))):
        give(remote.remote(settings, parts, num_cpus))
    while busy:
        [done], _ = ray.wait(list(busy), num_returns=1)
        worker, start = busy.pop(done)
        try:
            ray.get(done)
        except ray.exceptions.RayTaskError as error:
            raise ValueError(f"A worker failed: {error.cause}") from error
        except ray.exceptions.RayActorError as error:
            tries.count(start, error)
            left.append(start)
            give(remote.remote(settings, parts, num_cpus))
            continue
        yield start
        give(worker)


class _Deaths:
    """Which clips the processes died on, and how often."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.given_up: set[int] = set()
        self._counts: dict[int | None, int] = {}

    def count(self, start: int, error: Exception) -> None:
        """Finds out what a dead process was at. ValueError where it was at no clip, time and again."""
        row: int | None = None
        with suppress(OSError, ValueError):
            row = int(self.parts.trying(start).read_text(encoding="ascii"))
        self._counts[row] = self._counts.get(row, 0) + 1
        if self._counts[row] < MAX_DEATHS:
            return
        if row is None or row in self.given_up:
            raise ValueError(
                f"The workers die before they read a clip: {str(error).strip().splitlines()[-1]} Give them more memory "
                "or GPU, or use fewer."
            ) from error
        self.given_up.add(row)


class _Worker:
    """What runs on Ray."""

    def __init__(self, settings: EncoderSettings, parts: Parts, num_threads: int) -> None:
        import torch  # here, since the process that hands out the work needs no model

        torch.set_num_threads(num_threads)
        self.encoder = load_encoder(settings)
        self.parts = parts

    def write(self, start: int, given_up: Sequence[int]) -> None:
        self.parts.trying(start).unlink(missing_ok=True)  # of a process that was killed
        self.encoder.write_part(self.parts, start, given_up)


def _connect() -> Any:
    """Ray, on the cluster that RAY_ADDRESS names or started on this machine; the one that runs where it does."""
    import ray

    if not ray.is_initialized():
        ray.init(address=os.environ.get("RAY_ADDRESS", "local"), include_dashboard=False, log_to_driver=False)
    return ray
