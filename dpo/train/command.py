"""The command of preference training: `python -m dpo.train --config recipes/tiny/dpo.yaml`, or recipes/tiny/nft.yaml.

Writes the adapter (peft layout) or the model, the same with averaged weights in `ema/`, `train_log.jsonl`, samples with
their scores, checkpoints, `config.yaml`, `lineage.json` (rewards or annotators that selected the preferences of all
its trainings) and, last, `summary.json` into `output_dir`. A finished run is not repeated; `--resume_from_checkpoint
latest` continues a killed one.
One process, `accelerate launch -m dpo.train ...` with a file of recipes/accelerate, or `--num_workers N` on Ray.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from core.cli import StageSummary, echo, parse_config
from core.lineage import Lineage, read_lineage
from core.stage_state import finished_summary
from core.training_help import training_help
from dpo.data.state import dataset_fingerprint
from dpo.train.settings import TrainSettings
from jobs.stops import StageStoppedError
from model.lineage import model_lineage
from model.train.run import Settings, TrainingCommand, all_settings, skipped

if TYPE_CHECKING:
    from dpo.train.config import TrainConfig
    from dpo.train.preference_trainer import PreferenceTrainer

ABOUT = "Trains a joint audio-video model on preference pairs or groups of scored candidates, by LoRA or in full."


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0 on success, 2 on a mistake in the input."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(argv):
        echo(training_help(ABOUT, TrainSettings))
        return 0
    try:
        summary = finished_by(argv) or _train(parse(argv), argv)
    except (ValueError, StageStoppedError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    if summary is not None:
        echo(summary.line())
    return 0


def run(argv: Sequence[str]) -> None:
    """Train in one of the processes that Ray Train starts."""
    COMMAND.train(parse([*argv, "--num_workers", "0"]), {"command": _command(argv)}, is_held=True)


def train(config: TrainConfig, command: dict[str, Any] | None = None) -> StageSummary | None:
    """Train on the data, write the model with its records, and return the summary; None after a dry run.

    Args:
        config: the settings.
        command: what the user typed, kept in the summary so that the same command can return at once.

    Raises:
        ValueError: data that does not fit the model, an output folder of another run, a diverged loss.
    """
    return COMMAND.train(config, {"command": command})


def finished_by(argv: Sequence[str]) -> StageSummary | None:
    """Return the summary of an earlier run of this command on the same data, or None. Imports no torch."""
    started = time.perf_counter()
    command = _command(argv)
    folder, dataset = (command["flags"].get(name) or command["yaml"].get(name) for name in ("output_dir", "dataset"))
    found = finished_summary(Path(folder)) if folder else None
    if found is None or not dataset or found["settings"].get("command") != command:
        return None
    if found["settings"]["dataset_fingerprint"] != dataset_fingerprint(Path(dataset)):
        return None
    return skipped(found, started)


def parse(argv: Sequence[str]) -> TrainConfig:
    """Return the settings of a command line. Imports transformers, because its arguments are part of the settings."""
    from dpo.train.config import TrainConfig

    return parse_config(TrainConfig, argv)


def _train(config: TrainConfig, argv: Sequence[str]) -> StageSummary | None:
    """Train in this process or in Ray's processes. Return the summary if this process is the first."""
    if config.num_workers and not config.dry_run:
        return COMMAND.train_on_ray(config, argv)
    summary = train(config, command=_command(argv))
    return summary if config.process_index == 0 else None


def _settings(config: TrainConfig) -> tuple[Settings, Settings]:
    """Return all settings of the objective, and those that decide the trained weights.

    The data's fingerprint takes the place of its path. The objective dpo is left out, as in records of before there
    was another.
    """
    from dpo.train.config import NEUTRAL_SETTINGS, OWN_SETTINGS
    from model.train.run_state import comparable

    foreign = {"objective", *OWN_SETTINGS["nft"]} if config.objective == "dpo" else set(OWN_SETTINGS["dpo"])
    resolved = {name: value for name, value in all_settings(config).items() if name not in foreign}
    fingerprint = dataset_fingerprint(Path(config.dataset))
    return resolved, {"dataset_fingerprint": fingerprint} | comparable(resolved, NEUTRAL_SETTINGS | {"dataset"})


def _make_trainer(config: TrainConfig) -> PreferenceTrainer:
    from dpo.train.start import make_trainer

    return make_trainer(config)


def _plan(config: TrainConfig) -> str:
    from dpo.train.plan import plan

    return plan(config)


def _lineage(config: TrainConfig) -> Lineage:
    """Return the lineage of the starting model, extended by this training."""
    data = read_lineage(Path(config.dataset))
    if config.objective == "nft":
        from dpo.data.groups import read_rewards, using
        from dpo.train.advantages import choose_rewards

        data = using(data, choose_rewards(read_rewards(Path(config.dataset)), config, config.dataset).used)
    return model_lineage(config.model).then(data)


COMMAND = TrainingCommand("dpo.train", _settings, _make_trainer, _plan, _lineage)


def _command(argv: Sequence[str]) -> dict[str, Any]:
    """Return the command line and its YAML file as written; equal commands mean equal settings."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("config", "output_dir", "dataset"):
        parser.add_argument(f"--{name}", f"--{name.replace('_', '-')}")
    flags, rest = parser.parse_known_args(list(argv))
    content = None
    if flags.config and Path(flags.config).is_file():
        content = yaml.safe_load(Path(flags.config).read_text(encoding="utf-8"))
    return {"yaml": content if isinstance(content, dict) else {}, "flags": vars(flags) | {"rest": rest}}


if __name__ == "__main__":
    sys.exit(main())
