"""The alarm for the way DPO fails."""

import logging
from collections import deque
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from dpo.schema import MODALITIES

# A rise within a percent is the noise of few pairs; collapsing runs were seen to rise by tens of percents.
RISE_TOLERANCE = 0.01

logger = logging.getLogger(__name__)


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
