"""Shared parts of the stages: the settings of a worker pool, the command, the lock, the end of a stage."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from core.cli import StageSummary, config_to_dict, config_to_yaml, echo, package_versions, parse_config, save_config
from core.schema import FAILURES, table_from_rows, write_table
from core.storage import is_local, storage_errors
from jobs.lock import lock_folder
from jobs.stops import NoSpaceError, StageStoppedError, check_lasts, is_full_disk
from jobs.workers import Pool


def setting(default: Any, help_text: str) -> Any:
    return field(default=default, metadata={"help": help_text})


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """Settings of a stage's worker pool, none of which changes the content of rows."""

    num_actors: int = setting(1, "Worker processes; each loads the models once.")
    max_actors: int | None = setting(
        None, "Add workers up to this many while all are busy and the cluster has room; by default num_actors stays."
    )
    num_cpus: float = setting(1.0, "CPU cores, and threads, per worker.")
    num_gpus: float = setting(0.0, "GPUs per worker; 0.5 lets two workers share one.")
    batch_size: int = setting(
        1, "Maximum number of prompts per task of a worker; each row is recorded as soon as it is made."
    )
    device: str | None = setting(None, "Torch device; by default cuda when num_gpus > 0, else cpu.")
    max_tries: int = setting(3, "Number of tries of a prompt that kills its worker.")
    max_failures: int = setting(0, "Failed rows with which the command still exits with 0.")
    estimate: bool = setting(
        False, "Process a few prompts, keep their rows, and print the time and disk space that the rest needs."
    )
    dry_run: bool = setting(False, "Print the configuration and what is left to do; write and start nothing.")

    def __post_init__(self) -> None:
        for name, least in (
            ("num_actors", 1),
            ("batch_size", 1),
            ("max_tries", 1),
            ("num_gpus", 0),
            ("max_failures", 0),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least {least}.")
        if self.max_actors is not None and self.max_actors < self.num_actors:
            raise ValueError(
                f"max_actors is {self.max_actors}, but num_actors, which the pool starts with, is {self.num_actors}."
            )
        if self.num_cpus <= 0:
            raise ValueError(f"num_cpus is {self.num_cpus}, but a worker needs some CPU: give a number above 0.")

    @property
    def pool(self) -> Pool:
        most = self.num_actors if self.max_actors is None else self.max_actors
        return Pool(self.num_actors, most, self.num_cpus, self.num_gpus, self.batch_size, self.max_tries)

    @property
    def worker_settings(self) -> dict[str, Any]:
        """The settings that every actor gets."""
        return {
            "device": self.device or ("cuda" if self.num_gpus else "cpu"),
            "num_threads": max(1, int(self.num_cpus)),
        }


Config = TypeVar("Config", bound=WorkerConfig)


def run_command(
    config_class: type[Config],
    plan: Callable[[Config], str],
    estimate: Callable[[Config], str],
    stage: Callable[[Config], StageSummary],
    argv: Sequence[str] | None,
) -> int:
    """Run a stage as a command and return its exit status.

    The status is 0 on success, 1 with too many failed rows, 2 for a mistake in the input or a stop that the message
    explains, and 130 after Ctrl-C.
    """
    config = parse_config(config_class, argv)
    echo(config_to_yaml(config))
    try:
        if config.dry_run or config.estimate:
            echo((plan if config.dry_run else estimate)(config))
            return 0
        return exit_status(stage(config), config)
    except (ValueError, StageStoppedError, KeyboardInterrupt) as error:
        return stopped_status(error)


def stopped_status(error: ValueError | StageStoppedError | KeyboardInterrupt) -> int:
    """Print the reason why a command stopped early, and return its exit status."""
    if isinstance(error, KeyboardInterrupt):
        sys.stderr.write("\nstopped: finished work is kept, and the same command continues\n")
        return 130
    sys.stderr.write(f"error: {error}\n")
    return 2


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Lock a stage's folder, and turn a full disk or a failed store into an error with one clear message.

    Raises:
        ValueError: another run holds the folder, or Ray would delete it with the job.
        NoSpaceError: a write in the block failed because the disk is full.
        StageStoppedError: the object store of the folder failed.
    """
    check_lasts(folder)
    try:
        with lock_folder(folder):
            yield
    except storage_errors() as error:
        if is_full_disk(error):
            raise NoSpaceError(folder, str(error)) from error
        if not is_local(folder):
            raise StageStoppedError(
                f"{folder} cannot be read or written ({type(error).__name__}: {error}). What was finished is kept. "
                "Give the same command again when the store can be reached."
            ) from error
        raise


def exit_status(summary: StageSummary, config: WorkerConfig) -> int:
    return int(summary.failed > config.max_failures)


def finish(
    stage: str,
    folder: Path,
    config: WorkerConfig,
    *,
    started: float,
    wanted: int,
    done: int,
    skipped: int,
    failures: list[dict[str, Any]],
    versions: dict[str, str],
) -> StageSummary:
    """Check the counts, write failures.parquet, config.yaml and summary.json, and print the summary line."""
    assert wanted == done + len(failures), f"{wanted} rows wanted, but {done} are done and {len(failures)} failed"
    write_table(table_from_rows(failures, FAILURES), FAILURES, folder / "failures.parquet")
    save_config(config, folder / "config.yaml")
    summary = StageSummary(
        stage=stage,
        wanted=wanted,
        done=done,
        skipped=skipped,
        failed=len(failures),
        seconds=time.perf_counter() - started,
        settings=config_to_dict(config),
        versions=package_versions("avdpo", "torch", "ray") | versions,
    )
    summary.write(folder)
    echo(summary.line())
    if failures:
        first = failures[0]
        echo(
            f"{stage}: first failure {first['candidate_id']!r}: {first['error']} (all in {folder / 'failures.parquet'})"
        )
    return summary


def progress_bar(stage: str, total: int, skipped: int) -> tqdm:
    """Return a bar over candidates on stderr: a line every 10 s in a log file, nothing when no work is left."""
    seconds = 0.2 if sys.stderr.isatty() else 10.0
    return tqdm(total=total, initial=skipped, desc=stage, unit="clip", mininterval=seconds, disable=skipped == total)


def plan_line(stage: str, wanted: int, done: int, folder: Path) -> str:
    """Return the line that `--dry_run` prints."""
    return f"{stage}: wanted {wanted}, done {done}, left {wanted - done} (dry run: nothing written); output {folder}"
