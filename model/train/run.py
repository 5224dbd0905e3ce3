"""The run shared by the training commands: the claimed folder, the processes, the records, the written model."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from core.atomic import atomic_write_text
from core.cli import StageSummary, echo, package_versions
from core.lineage import Lineage, write_lineage

if TYPE_CHECKING:
    from model.train.joint_trainer import JointTrainer

STAGE = "train"
Settings = dict[str, Any]


@dataclass(frozen=True)
class TrainingCommand:
    """A training command.

    Attributes:
        module: name of the command's package, which Ray's workers import; its `command.run(argv)` trains.
        settings: returns all settings of a configuration, and those that decide the trained weights.
        make_trainer: returns the trainer with its data and callbacks; raises ValueError for mistakes in the input.
        plan: returns the text of a dry run.
        lineage: returns the lineage of the trained model, including that of the model it starts from.
    """

    module: str
    settings: Callable[[Any], tuple[Settings, Settings]]
    make_trainer: Callable[[Any], JointTrainer]
    plan: Callable[[Any], str]
    lineage: Callable[[Any], Lineage]

    def train(self, config: Any, record: Settings | None = None, is_held: bool = False) -> StageSummary | None:
        """Train, write the model with its records, and return the summary; None after a dry run.

        Args:
            config: the settings.
            record: values kept in the summary beside the settings.
            is_held: another process, to which this one belongs, holds the output folder.

        Raises:
            ValueError: data that does not fit the model, an output folder of another run, a diverged loss.
            NoSpaceError: the disk is full.
        """
        from model.train.hold import hold_output
        from model.train.run_state import claim_folder

        started, folder = time.perf_counter(), Path(str(config.output_dir))
        resolved, settings = self.settings(config)
        found = claim_folder(folder, settings)
        if found:
            return skipped(found, started)
        text = yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True)
        if config.process_index == 0:
            echo(text.rstrip())
        if config.dry_run:
            echo(self.plan(config))
            return None
        _check_processes(config)
        with nullcontext() if is_held else hold_output(config):
            done, restored = self._train(config, folder, settings, text)
            versions = package_versions("avdpo", "torch", "transformers", "peft", "accelerate")
            seconds = time.perf_counter() - started
            summary = StageSummary(STAGE, done, done, restored, 0, seconds, settings | (record or {}), versions)
            if config.process_index == 0:
                summary.write(folder)
        return summary

    def _train(self, config: Any, folder: Path, settings: Settings, config_text: str) -> tuple[int, int]:
        """Train and write all but the summary; return the number of steps, and how many of them a checkpoint gave."""
        from model.train.run_state import begin, checkpoint_to_resume

        # These find mistakes, which must not claim the folder.
        checkpoint, trainer = checkpoint_to_resume(folder, config.resume_from_checkpoint), self.make_trainer(config)
        lineage = self.lineage(config)
        if config.process_index == 0:
            begin(folder, settings)
            write_lineage(folder, lineage)
            atomic_write_text(folder / "config.yaml", config_text)
        steps = _fit(trainer, config, checkpoint)
        if config.process_index == 0:
            _write_lineage_of_average(folder, lineage)
        return steps

    def train_on_ray(self, config: Any, argv: Sequence[str]) -> StageSummary:
        """Train by `config.num_workers` processes of Ray Train, unless the folder holds the finished run.

        Raises:
            ValueError: what `train` found in one of them, too few GPUs, or a folder that another run holds.
        """
        from jobs.stage import hold
        from model.train.launch import run_on_ray
        from model.train.run_state import claim_folder

        started, folder, settings = time.perf_counter(), Path(str(config.output_dir)), self.settings(config)[1]
        found = claim_folder(folder, settings)
        if found:
            return skipped(found, started)
        with hold(folder.resolve()):
            run_on_ray(self.module, argv, config.num_workers, str(folder), config.use_cpu)
        found = claim_folder(folder, settings)
        assert found is not None, "the first worker writes it"
        return StageSummary(**{field.name: found[field.name] for field in fields(StageSummary)})


def skipped(found: Settings, started: float) -> StageSummary:
    """Return the summary of a run that an earlier call finished."""
    seconds = time.perf_counter() - started
    return StageSummary(STAGE, found["wanted"], found["done"], found["done"], 0, seconds, found["settings"], {})


def all_settings(config: Any) -> Settings:
    """Return the settings as plain values, without `num_workers`: the way processes are started is no setting."""
    from model.train.arguments import resolved_settings

    return resolved_settings(config) | {"num_workers": 0}


def _fit(trainer: JointTrainer, config: Any, checkpoint: Path | None) -> tuple[int, int]:
    """Train and save; return the number of steps, and how many of them a checkpoint gave."""
    from model.train.run_state import checkpoint_step
    from model.train.trained_folder import export_model

    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    export_model(trainer, config.model)
    trainer.save_state()
    return trainer.state.global_step, checkpoint_step(checkpoint) if checkpoint else 0


def _write_lineage_of_average(folder: Path, lineage: Lineage) -> None:
    from model.train.trained_folder import EMA_FOLDER

    if (folder / EMA_FOLDER).is_dir():
        write_lineage(folder / EMA_FOLDER, lineage)


def _check_processes(config: Any) -> None:
    """Refuse processes that do not form one group: each would train alone, into the same folder."""
    started = int(os.environ.get("WORLD_SIZE", 1))
    if config.world_size != started:
        raise ValueError(
            f"{started} processes were started (WORLD_SIZE), but they found {config.world_size} device(s) to train on "
            "together: on CPUs set use_cpu true, else start as many processes as there are GPUs."
        )
