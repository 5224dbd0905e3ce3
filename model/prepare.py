"""Clips to training data: `python -m model.prepare --clips TABLE_OR_FOLDER --model NAME --output DIR`.

Each clip is cut to its bucket, and encoded once by the model's codecs; its caption by the model's text encoder.
Training then needs none of them.  A killed run goes on where it stopped; a finished one is left alone.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from media.atomic import TEMPORARY_PREFIX, atomic_write_text
from media.cli import StageSummary, config_to_dict, config_to_yaml, echo, package_versions, parse_config, save_config
from media.stage_state import finished_summary, refuse_changes
from model.clips import fingerprint, read_clips
from model.prepare_config import PrepareConfig
from model.prepare_parts import FAILURES_NAME, Parts, choose_rows_per_part

SETTINGS_NAME = "prepare.json"  # what the rows in the folder depend on, written before the first
NUM_REASONS_SHOWN = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; 0 on success, 1 with too many failed clips, 2 on a mistake in the input."""
    config = parse_config(PrepareConfig, argv)
    echo(config_to_yaml(config))
    try:
        if config.dry_run:
            echo("\n".join(plan(config)))
            return 0
        return int(prepare(config).failed > config.max_failed)
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


def prepare(config: PrepareConfig) -> StageSummary:
    """Writes the dataset, its negative prompt, failures and summary into `config.output`, and echoes how it went.

    A shard makes its parts; whoever makes the last one finishes the dataset.

    Raises:
        ValueError: no table or model, buckets that are none, no usable clip, or a folder made with other settings.
    """
    started = time.perf_counter()
    clips = read_clips(config.clips)
    settings = config.recorded | {"clips_fingerprint": fingerprint(clips, config.clips)}
    parts = _claim(config.folder, len(clips), settings)
    if config.retry_failed:
        parts.forget_failures()
    missing = set(parts.missing())
    made = [start for start in config.own(parts.starts) if start in missing]
    if made:
        _make(parts, made, config)
    is_complete = not parts.missing()
    counted = list(parts.starts) if is_complete else config.own(parts.starts)
    summary = _summary(parts, counted, made, config, settings, time.perf_counter() - started)
    if is_complete and finished_summary(config.folder) is None:
        parts.publish(settings)
        save_config(config, config.folder / "config.yaml")
        summary.write(config.folder)
    _report(parts, counted, summary)
    if is_complete:
        _decode(config)
    return summary


def plan(config: PrepareConfig) -> list[str]:
    """What a run would do, one line each: clips by bucket, clips that cannot be used, and how many are left."""
    from model.prepare_rows import describe, open_dataset

    dataset = open_dataset(config.row_settings())
    parts = _parts(config.folder, len(dataset))
    own, missing = config.own(parts.starts), set(parts.missing())
    wanted, left = _num_rows(parts, own), _num_rows(parts, [start for start in own if start in missing])
    counts = f"prepare: wanted {wanted}, done {wanted - left}, left {left} (dry run: nothing written)"
    return [*describe(dataset), f"{counts}; output {config.folder}"]


def _claim(folder: Path, num_rows: int, settings: dict[str, Any]) -> Parts:
    """Notes the settings in a new folder; ValueError where something else is in it."""
    path = folder / SETTINGS_NAME
    parts = _parts(folder, num_rows)
    if path.is_file():
        refuse_changes(folder, json.loads(path.read_text(encoding="utf-8")), settings)
    elif folder.is_dir() and any(not entry.name.startswith(TEMPORARY_PREFIX) for entry in folder.iterdir()):
        raise ValueError(f"{folder} holds other files: give a new folder for the dataset.")
    else:
        content = settings | {"rows_per_part": parts.rows_per_part}
        atomic_write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return parts


def _parts(folder: Path, num_rows: int) -> Parts:
    """The parts of a folder, as it was begun."""
    path = folder / SETTINGS_NAME
    begun = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return Parts(folder, num_rows, begun.get("rows_per_part") or choose_rows_per_part(num_rows))


def _make(parts: Parts, starts: Sequence[int], config: PrepareConfig) -> None:
    """Writes parts, in this process or by others."""
    total = _num_rows(parts, config.own(parts.starts))
    done = total - _num_rows(parts, starts)
    settings, cpus = config.row_settings(), config.cpus_per_worker
    with tqdm(total=total, initial=done, desc="prepare", unit="clip", file=sys.stderr) as bar:
        if config.num_workers:
            from model.prepare_ray import write_parts

            there = Parts(parts.folder.resolve(), parts.num_rows, parts.rows_per_part)
            for start in write_parts(there, starts, settings, config.num_workers, cpus, config.gpus_per_worker):
                bar.update(len(parts.rows(start)))
        else:
            from model.prepare_rows import RowEncoder, num_threads

            encoder = RowEncoder(settings)
            with num_threads(cpus):
                for start in starts:
                    encoder.write_part(parts, start, progress=bar.update)


def _summary(
    parts: Parts,
    counted: Sequence[int],
    made: Sequence[int],
    config: PrepareConfig,
    settings: dict[str, Any],
    seconds: float,
) -> StageSummary:
    earlier = [start for start in counted if start not in set(made)]
    failed = len(parts.failures(counted))
    wanted = _num_rows(parts, counted)
    skipped = _num_rows(parts, earlier) - len(parts.failures(earlier))
    everything = config_to_dict(config) | settings
    versions = package_versions("avdpo", "torch", "datasets", "av")
    return StageSummary("prepare", wanted, wanted - failed, skipped, failed, seconds, everything, versions)


def _report(parts: Parts, counted: Sequence[int], summary: StageSummary) -> None:
    echo(summary.line())
    failures = parts.failures(counted)
    for failure in failures[:NUM_REASONS_SHOWN]:
        echo(f"prepare: failed {failure['clip_id']}: {failure['reason']}")
    missing = len(parts.missing())
    if missing:
        echo(f"prepare: {missing} of {len(parts.starts)} parts are still missing, which other shards make")
    elif failures:
        echo(f"prepare: all {len(failures)} failures are in {parts.folder / FAILURES_NAME}")


def _decode(config: PrepareConfig) -> None:
    if config.decode:
        from model.prepare_check import decode_clips

        paths = decode_clips(config.folder, config.model, config.torch_device, config.decode, config.seed)
        echo(f"prepare: decoded {len(paths)} clips into {paths[0].parent}")


def _num_rows(parts: Parts, starts: Sequence[int]) -> int:
    return sum(len(parts.rows(start)) for start in starts)


if __name__ == "__main__":
    sys.exit(main())
