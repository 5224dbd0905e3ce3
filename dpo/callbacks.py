"""What watches a run: the log on disk, and the alarm for the way DPO fails."""

import json
import logging
from collections import deque
from pathlib import Path
from typing import Any

from transformers import ProgressCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from dpo.schema import MODALITIES
from media.atomic import atomic_write_text

LOG_NAME = "train_log.jsonl"
# A rise within a percent is the noise of few pairs; collapsing runs were seen to rise by tens of percents.
RISE_TOLERANCE = 0.01

logger = logging.getLogger(__name__)


class JsonlLog(TrainerCallback):
    """Appends every log line to `<output_dir>/train_log.jsonl`; a resumed run cuts what the dead one wrote too far."""

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
    """The lines of a run's log; empty without one.  A torn last line, left by a killed run, is ignored."""
    path = Path(str(output_dir)) / LOG_NAME
    if not path.is_file():
        return []
    complete = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in complete]


class MarginProgress(ProgressCallback):
    """The progress bar, with the loss and the margins beside it in place of transformers' forty-key lines."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if self.training_bar is not None and logs and "loss" in logs:
            margins = {f"margin/{name}": f"{logs[f'rewards/margins/{name}']:+.3f}" for name in MODALITIES}
            self.training_bar.set_postfix(loss=f"{logs['loss']:.3f}", **margins)


class WinnerErrorAlarm(TrainerCallback):
    """Warns when the winner's error has risen over the reference's for a window of steps.

    DPO can widen the margin by making both clips less likely, the loser faster.  The margin looks fine then, and the
    samples fall apart.
    """

    def __init__(self, window: int) -> None:
        """Takes the number of steps to look back on."""
        self.window = window
        self.history: dict[str, deque[tuple[int, float]]] = {name: deque() for name in MODALITIES}
        self.alarmed: dict[str, bool] = dict.fromkeys(MODALITIES, False)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        for name in MODALITIES:
            key = f"error/chosen/{name}"
            if logs and key in logs:
                self._watch(name, state.global_step, logs[key] / logs[f"ref_{key}"] - 1)

    def _watch(self, name: str, step: int, rise: float) -> None:
        history = self.history[name]
        history.append((step, rise))
        while len(history) > 1 and history[1][0] <= step - self.window:
            history.popleft()
        if step - history[0][0] < self.window:
            return
        mean = sum(value for _, value in history) / len(history)
        if mean > RISE_TOLERANCE and not self.alarmed[name]:
            logger.warning(
                "The winner's %s error has been %.1f %% above the reference's over the last %d steps (now step %d): "
                "the model is drifting off the data. Raise fm_weight, or lower learning_rate or beta_%s.",
                name,
                100 * mean,
                self.window,
                step,
                name,
            )
        self.alarmed[name] = mean > RISE_TOLERANCE


def _path(args: TrainingArguments) -> Path:
    return Path(str(args.output_dir)) / LOG_NAME
