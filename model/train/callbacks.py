"""Callbacks of a training run: the log on disk, the progress bar, the epoch of the sampler, the running average."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from transformers import ProgressCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from core.atomic import atomic_write_text
from model.data.batches import BucketBatchSampler

if TYPE_CHECKING:
    from torch import nn

    from model.train.ema import WeightAverage

LOG_NAME = "train_log.jsonl"


class JsonlLog(TrainerCallback):
    """Callback that appends log lines to `train_log.jsonl`; a resumed run first cuts lines after its checkpoint."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            kept = [line for line in read_log(args.output_dir) if line["step"] <= state.global_step]
            atomic_write_text(_path(args), "".join(json.dumps(line) + "\n" for line in kept))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if state.is_world_process_zero:
            with _path(args).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, **(logs or {})}) + "\n")


def read_log(output_dir: str | Path | None) -> list[dict[str, Any]]:
    """Return the lines of a run's log; empty without one. An incomplete last line of a killed run is ignored."""
    path = Path(str(output_dir)) / LOG_NAME
    if not path.is_file():
        return []
    complete = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in complete]


class ShortProgress(ProgressCallback):
    """The progress bar with a few numbers beside it, in place of transformers' forty-key lines."""

    def __init__(self, postfix: Callable[[dict[str, Any]], dict[str, str]]) -> None:
        """Create the bar; `postfix` selects the values to show from a log line with a loss."""
        super().__init__()
        self.postfix = postfix

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix(self.postfix(logs))


class EpochSetter(TrainerCallback):
    """Callback that sets the sampler's epoch, also in a resumed run: transformers reaches only unwrapped samplers."""

    def __init__(self, sampler: BucketBatchSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.sampler.set_epoch(int(state.epoch or 0))


class AveragingTrainer(Protocol):
    """Interface of a trainer with a running average."""

    model: nn.Module
    average: WeightAverage | None

    def start_average(self) -> None: ...


class AverageUpdater(TrainerCallback):
    """Callback that updates the running average after every optimiser step."""

    def __init__(self, trainer: AveragingTrainer) -> None:
        """Create the callback of a trainer, which creates its average when training begins."""
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.trainer.start_average()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.trainer.average is not None:
            self.trainer.average.update(self.trainer.model)


def _path(args: TrainingArguments) -> Path:
    return Path(str(args.output_dir)) / LOG_NAME
