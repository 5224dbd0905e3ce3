"""The run of a preparation: claim the folder, make the missing parts, publish the dataset, print a summary.

A killed run continues where it stopped; a finished one is not repeated. Imports no torch.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tqdm import tqdm

from core.atomic import TEMPORARY_PREFIX, atomic_write_text
from core.cli import (
    StageSummary,
    config_to_dict,
    config_to_yaml,
    echo,
    package_versions,
    parse_config,
    save_config,
)
from core.stage_state import finished_summary, refuse_changes
from jobs.stage import stopped_status
from jobs.stops import StageStoppedError
from model.prepare.config import PrepareOptions
from model.prepare.encoder import EncoderSettings, load_encoder
from model.prepare.hold import hold_output
from model.prepare.parts import FAILURES_NAME, Parts, RowLayout, choose_rows_per_part

SETTINGS_NAME = "prepare.json"  # settings that decide the rows in the folder, written before the first row
NUM_REASONS_SHOWN = 3

Config = TypeVar("Config", bound=PrepareOptions)


class Work(Protocol):
    """Data that a command prepares."""

    layout: RowLayout
    settings: dict[str, Any]  # that decide the rows, as JSON values
    num_rows: int  # of the table; parts are made of them

    def count(self, rows: Iterable[int]) -> int:
        """Return the number of dataset rows that these rows of the table give, failures included."""

    def encoder_settings(self) -> EncoderSettings:
        """Return the settings for the processes that make rows."""

    def check(self) -> None:
        """Raise ValueError for mistakes that can be found before the first row."""

    def decode(self) -> list[Path]:
        """Write random rows of the finished dataset as media files, and return their paths."""


def run_command(
    config_class: type[Config],
    plan: Callable[[Config], Sequence[str]],
    prepare: Callable[[Config], StageSummary],
    argv: Sequence[str] | None,
) -> int:
    """Run a preparation as a command and return its exit status.

    Returns:
        0 on success, 1 with too many failed rows, 2 on a mistake in the input, 130 after Ctrl-C.
    """
    config = parse_config(config_class, argv)
    echo(config_to_yaml(config))
    try:
        if config.dry_run:
            echo("\n".join(plan(config)))
            return 0
        return int(prepare(config).failed > config.max_failed)
    except (ValueError, StageStoppedError, KeyboardInterrupt) as error:
        return stopped_status(error)


def run(work: Work, config: PrepareOptions) -> StageSummary:
    """Write the dataset, its negative prompt, failures and summary into `config.output`, and print the summary.

    A shard makes its parts; the call that makes the last missing part publishes the dataset.

    Raises:
        ValueError: no usable row, a folder made with other settings, one that another run holds, or a mistake that the
            work finds.
        NoSpaceError: the disk is full.
    """
    started = time.perf_counter()
    parts = parts_of(work, config.folder)
    _refuse_foreign_folder(parts, work)
    is_finished = not (config.retry_failed or parts.missing()) and finished_summary(config.folder) is not None
    with nullcontext() if is_finished else hold_output(config):
        made = _make_missing(parts, work, config)
        is_complete = not parts.missing()
        counted = list(parts.starts) if is_complete else config.own(parts.starts)
        summary = _summary(parts, counted, made, work, config, time.perf_counter() - started)
        if is_complete and not is_finished:
            parts.publish(work.settings)
            save_config(config, config.folder / "config.yaml")
            summary.write(config.folder)
    _report(parts, counted, summary)
    if is_complete and config.check:
        paths = work.decode()
        echo(f"prepare: decoded {len(paths)} clips into {paths[0].parent}")
    return summary


def plan_line(work: Work, config: PrepareOptions) -> str:
    """Return the line of a dry run: rows wanted, done and left."""
    parts = parts_of(work, config.folder)
    own, missing = config.own(parts.starts), set(parts.missing())
    wanted, left = (_num_rows(parts, work, starts) for starts in (own, [start for start in own if start in missing]))
    counts = f"prepare: wanted {wanted}, done {wanted - left}, left {left} (dry run: nothing written)"
    return f"{counts}; output {config.folder}"


def parts_of(work: Work, folder: Path) -> Parts:
    """Return the parts of a folder, with the size of an earlier run."""
    path = folder / SETTINGS_NAME
    begun = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    rows_per_part = begun.get("rows_per_part") or choose_rows_per_part(work.num_rows)
    return Parts(folder, work.num_rows, rows_per_part, work.layout)


def _refuse_foreign_folder(parts: Parts, work: Work) -> None:
    path = parts.folder / SETTINGS_NAME
    if path.is_file():
        refuse_changes(parts.folder, json.loads(path.read_text(encoding="utf-8")), work.settings)
    elif parts.folder.is_dir() and any(not one.name.startswith(TEMPORARY_PREFIX) for one in parts.folder.iterdir()):
        raise ValueError(f"{parts.folder} holds other files: give a new folder for the dataset.")


def _make_missing(parts: Parts, work: Work, config: PrepareOptions) -> list[int]:
    """Write the missing parts of this call, and return their starts."""
    if config.retry_failed:
        parts.forget_failures()
    missing = set(parts.missing())
    made = [start for start in config.own(parts.starts) if start in missing]
    if made:
        work.check()
        _claim(parts, work)
        _make(parts, made, work, config)
    return made


def _claim(parts: Parts, work: Work) -> None:
    """Write the settings into a new folder."""
    path = parts.folder / SETTINGS_NAME
    if not path.is_file():
        content = work.settings | {"rows_per_part": parts.rows_per_part}
        atomic_write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _make(parts: Parts, starts: Sequence[int], work: Work, config: PrepareOptions) -> None:
    """Write parts, in this process or on Ray."""
    total = _num_rows(parts, work, config.own(parts.starts))
    done = total - _num_rows(parts, work, starts)
    settings, cpus = work.encoder_settings(), config.cpus_per_worker
    with tqdm(total=total, initial=done, desc="prepare", unit=work.layout.item, file=sys.stderr) as bar:
        if config.num_workers:
            from model.prepare.actor import write_parts

            there = Parts(parts.folder.resolve(), parts.num_rows, parts.rows_per_part, parts.layout)
            for start in write_parts(there, starts, settings, config.num_workers, cpus, config.gpus_per_worker):
                bar.update(work.count(parts.rows(start)))
        else:
            from model.prepare.rows import num_threads

            encoder = load_encoder(settings)
            with num_threads(cpus):
                for start in starts:
                    encoder.write_part(parts, start, progress=bar.update)


def _summary(
    parts: Parts,
    counted: Sequence[int],
    made: Sequence[int],
    work: Work,
    config: PrepareOptions,
    seconds: float,
) -> StageSummary:
    earlier = [start for start in counted if start not in set(made)]
    failed = len(parts.failures(counted))
    wanted = _num_rows(parts, work, counted)
    skipped = _num_rows(parts, work, earlier) - len(parts.failures(earlier))
    everything = config_to_dict(config) | work.settings
    versions = package_versions("avdpo", "torch", "datasets", "av")
    return StageSummary("prepare", wanted, wanted - failed, skipped, failed, seconds, everything, versions)


def _report(parts: Parts, counted: Sequence[int], summary: StageSummary) -> None:
    echo(summary.line())
    failures, name = parts.failures(counted), parts.layout.failure_columns[0]
    for failure in failures[:NUM_REASONS_SHOWN]:
        echo(f"prepare: failed {failure[name]}: {failure['reason']}")
    missing = len(parts.missing())
    if missing:
        echo(f"prepare: {missing} of {len(parts.starts)} parts are still missing, which other shards make")
    elif failures:
        echo(f"prepare: all {len(failures)} failures are in {parts.folder / FAILURES_NAME}")


def _num_rows(parts: Parts, work: Work, starts: Sequence[int]) -> int:
    return sum(work.count(parts.rows(start)) for start in starts)
