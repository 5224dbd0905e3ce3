"""Online preference training: rounds of sample, score, rank, prepare and train, each with the model of the last.

    python -m pipeline.rounds --config recipes/tiny/rounds.yaml --prompts PROMPTS --output_dir runs/online --rounds 3

Round k samples with the model that round k - 1 ended with, and trains a new adapter on top of it, against it: the
reference of a round is the model that it began with, not the first one. With `--objective nft` a round does not rank:
it trains on all candidates of a prompt. DIR/round-k holds prompts.parquet, preferences/, training/, published.json
(hashes of the round's data, checked before training), model/ (an adapter whose base is the round before's, so keep them
all), evaluation/ and, last, round.json. With held-out prompts, DIR/best.json names the round that the held-out judges
prefer. A finished round is skipped, and a killed one goes on where it stopped, by the same command.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from core.atomic import atomic_write_text
from core.cli import config_to_yaml, echo, parse_config
from core.prompts import read_prompts
from core.schema import PROMPTS, write_table
from core.stage_state import refuse_changes
from jobs.stage import hold, stopped_status
from jobs.stops import StageStoppedError
from pipeline.rank.pairs_folder import moved
from pipeline.rounds.choice import CHOICE_NAME, RoundChoice, choose_round
from pipeline.rounds.config import RoundsConfig
from pipeline.rounds.publish import publish
from pipeline.rounds.table import RoundFigures, measure, rounds_table

SETTINGS_NAME = "rounds.json"  # the settings that the folder belongs to, written before the first round
FIGURES_NAME = "round.json"  # the figures of a round, written when it is finished


class RoundStoppedError(Exception):
    """Error of a stage that ended with a status other than 0. The stage has printed its reason."""

    def __init__(self, number: int, stage: str, status: int) -> None:
        super().__init__(
            f"round {number} stops at {stage}, which ended with status {status}; run the same command to continue"
        )
        self.status = status


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0, 1 if a stage has too many failed rows, 2 if the input is wrong, 130 after Ctrl-C."""
    config = parse_config(RoundsConfig, argv, about="Rounds of sample, score, rank, prepare and train.")
    echo(config_to_yaml(config))
    try:
        check(config)
        if config.dry_run:
            echo("\n".join(plan(config)))
            return 0
        with hold(config.output_dir):
            echo(rounds_table(run_rounds(config)))
    except RoundStoppedError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.status
    except (ValueError, StageStoppedError, KeyboardInterrupt) as error:
        return stopped_status(error)
    return 0


def run_rounds(config: RoundsConfig) -> list[RoundFigures]:
    """Run the missing rounds. Returns the figures of all rounds.

    Raises:
        ValueError: the folder belongs to other settings, a round has no pairs, or a stage refuses its input.
        RoundStoppedError: a stage has more failed rows than its limit.
    """
    atomic_write_text(config.output_dir / SETTINGS_NAME, json.dumps(config.recorded, indent=2) + "\n")
    found = [finished_round(config, number) for number in range(1, config.rounds + 1)]
    if None in found:
        _run_stages(config, 0, config.held_out_stage(0))
    figures = []
    for number, before in enumerate(found, start=1):
        if before is not None:
            echo(f"round {number}: finished before")
        figures.append(before or _run_round(config, number))
        if before is None and config.stop_on_decline and _choose(config, number).declines:
            echo(f"rounds: stops after round {number} of {config.rounds}, which the judges find worse")
            break
    if config.held_out is not None:
        echo(_choose(config, len(figures)).sentence())
    return figures


def _choose(config: RoundsConfig, last: int) -> RoundChoice:
    """Choose the best round so far, and record it in the run's folder unless the record is the same already."""
    choice = choose_round(config, last)
    path, text = config.output_dir / CHOICE_NAME, json.dumps(choice.to_dict(), indent=2) + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        atomic_write_text(path, text)
    return choice


def finished_round(config: RoundsConfig, number: int) -> RoundFigures | None:
    """Return the figures of a finished round; None if it is not finished or lacks the requested comparison."""
    path = config.folder(number) / FIGURES_NAME
    if not path.is_file():
        return None
    figures = RoundFigures.from_dict(json.loads(path.read_text(encoding="utf-8")))
    held_out = None if config.held_out is None else str(config.held_out.resolve())
    return figures if held_out in (None, figures.held_out) else None


def check(config: RoundsConfig) -> None:
    """Check the prompts, every stage's settings and the output folder, so that mistakes are found before hours of work.

    Raises:
        ValueError: one of these is wrong. An unknown setting of a stage ends the program, as in the stage itself.
    """
    prompts = read_prompts(config.prompts)
    needed = config.rounds * (config.prompts_per_round or 0)
    if needed > len(prompts):
        raise ValueError(
            f"{config.rounds} rounds with prompts_per_round {config.prompts_per_round} need {needed} prompts, because "
            f"none is used twice, but {config.prompts} has {len(prompts)}: give more prompts or fewer rounds, or leave "
            "prompts_per_round out, so that every round uses all of them."
        )
    if config.held_out is not None:
        read_prompts(config.held_out)
    path = config.output_dir / SETTINGS_NAME
    if path.is_file():
        found, wanted = json.loads(path.read_text(encoding="utf-8")), config.recorded
        refuse_changes(config.output_dir, found, dict.fromkeys(found) | wanted)
    if all(finished_round(config, number) for number in range(1, config.rounds + 1)):
        return  # skips the slow check below: reading a training's settings takes seconds
    from model.lora import ADAPTER_CONFIG_NAME  # imported late: imports torch

    with tempfile.TemporaryDirectory() as folder:
        parsed = {
            name: _parse(name, _write_settings(Path(folder), name, settings))
            for name, settings in config.stages(1).items()
        }
    if parsed["training"].adapter == "continue" and not (Path(config.first_model) / ADAPTER_CONFIG_NAME).is_file():
        raise ValueError(
            f"training sets adapter to 'continue', and {config.model} is no adapter folder, so that the first round "
            "would stop after its sampling: give an adapter folder as model, or set adapter to 'new'."
        )


def plan(config: RoundsConfig) -> list[str]:
    """Describe what a run would do, one line per round."""
    table = read_prompts(config.prompts)
    lines = []
    for number in range(1, config.rounds + 1):
        if finished_round(config, number) is not None:
            lines.append(f"round {number}: finished")
            continue
        begun = "continues: " if config.folder(number).is_dir() else ""
        lines.append(
            f"round {number}: {begun}{len(round_prompts(config, table, number))} prompts, run seed "
            f"{config.seed + number - 1}, from {config.model_of(number - 1)}"
        )
    return [*lines, f"rounds: dry run, nothing written; output {config.output_dir}"]


def round_prompts(config: RoundsConfig, table: pa.Table, number: int) -> pa.Table:
    """Return the prompts of a round: all, or the next ones of a shuffled order."""
    if config.prompts_per_round is None:
        return table
    order = np.random.default_rng(config.seed).permutation(len(table))
    first = (number - 1) * config.prompts_per_round
    return table.take(pa.array(np.sort(order[first : first + config.prompts_per_round])))


def _run_round(config: RoundsConfig, number: int) -> RoundFigures:
    started = time.perf_counter()
    echo(f"round {number} of {config.rounds}: from {config.model_of(number - 1)}")
    _write_prompts(config, number)
    stages = config.stages(number)
    data = {name: stages.pop(name) for name in ("preferences", "preparation")}
    _run_stages(config, number, data)
    publish(config, number)
    _run_stages(config, number, stages)
    figures = measure(config, number, time.perf_counter() - started)
    atomic_write_text(config.folder(number) / FIGURES_NAME, json.dumps(figures.to_dict(), indent=2) + "\n")
    return figures


def _write_prompts(config: RoundsConfig, number: int) -> None:
    table, folder = round_prompts(config, read_prompts(config.prompts), number), config.folder(number)
    for name in ("video_path", "audio_path"):
        paths = moved(table[name].to_pandas(), config.prompts.parent, folder)
        table = table.set_column(table.column_names.index(name), name, pa.array(paths, pa.string(), from_pandas=True))
    folder.mkdir(parents=True, exist_ok=True)
    write_table(table, PROMPTS, folder / "prompts.parquet")


def _run_stages(config: RoundsConfig, number: int, stages: dict[str, dict[str, Any]]) -> None:
    for name, settings in stages.items():
        status = _run_stage(name, _write_settings(config.folder(number), name, settings))
        if status:
            raise RoundStoppedError(number, name, status)


def _write_settings(folder: Path, stage: str, settings: dict[str, Any]) -> Path:
    path = folder / f"{stage}.yaml"
    atomic_write_text(path, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    return path


def _parse(stage: str, path: Path) -> Any:
    """Parse the settings of a stage as its command does."""
    arguments = ["--config", str(path)]
    if stage == "training":
        from dpo.train.command import parse

        return parse(arguments)
    if stage == "preparation":
        from dpo.prepare.config import PrepareConfig

        return parse_config(PrepareConfig, arguments)
    from pipeline.run import RunConfig

    return parse_config(RunConfig, arguments)


def _run_stage(stage: str, path: Path) -> int:
    """Run the command of a stage in this process, so that Ray starts once and a killed run leaves no process."""
    if stage == "training":
        from dpo.train.command import main as train

        try:
            return train(["--config", str(path)])
        finally:
            _free_memory()
    config = _parse(stage, path)
    if stage == "preparation":
        from dpo.prepare.command import prepare

        return int(prepare(config).failed > config.max_failed)
    from pipeline.run import run

    return run(config)


def _free_memory() -> None:
    """Free the trainer, which is in a reference cycle and would keep its model on the next round's GPU."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    sys.exit(main())
