"""What watches preference training: alarms for the ways it fails, and the reference that follows the policy."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from dpo.data.schema import MODALITIES

if TYPE_CHECKING:
    from torch import nn

    from dpo.loss.reference import FrozenCopy
    from dpo.train.config import AVDPOConfig

# A rise within a percent is the noise of few pairs; collapsing runs were seen to rise by tens of percents.
RISE_TOLERANCE = 0.01
LEAST_GRADIENT_SHARE = 0.02  # below it a modality trains as if it were left out

logger = logging.getLogger(__name__)


class Window:
    """Mean of a value over the last steps; None until so many have passed."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.history: deque[tuple[int, float]] = deque()

    def mean(self, step: int, value: float) -> float | None:
        self.history.append((step, value))
        while len(self.history) > 1 and self.history[1][0] <= step - self.length:
            self.history.popleft()
        if step - self.history[0][0] < self.length:
            return None
        return sum(value for _, value in self.history) / len(self.history)


class TrainingAlarms(TrainerCallback):
    """Warns, per modality, when the winner's error has risen over the reference's, and when a modality goes unheard.

    DPO can widen the margin by making both clips less likely, the loser faster. The margin looks fine then, and the
    samples fall apart. And a modality whose gradient is a few hundredths of the other's does not learn, whatever its
    own loss does: known from joint audio-video training, where the sound is the one.
    """

    def __init__(self, window: int) -> None:
        """Takes the number of steps to look back on."""
        self.window = window
        self.rises, self.shares = ({name: Window(window) for name in MODALITIES} for _ in range(2))
        self.alarmed: set[tuple[str, str]] = set()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not logs or not state.is_world_process_zero:
            return
        for name in MODALITIES:
            key = f"error/chosen/{name}"
            if key in logs:
                self._watch_winner(name, state.global_step, logs[key] / logs[f"ref_{key}"] - 1)
            if logs.get(f"grad_share/{name}"):  # 0: its weight is
                self._watch_share(name, state.global_step, logs[f"grad_share/{name}"])

    def _watch_winner(self, name: str, step: int, rise: float) -> None:
        mean = self.rises[name].mean(step, rise)
        if self._starts("winner", name, mean is not None and mean > RISE_TOLERANCE):
            assert mean is not None
            logger.warning(
                "The winner's %s error has been %.1f %% above the reference's over the last %d steps (now step %d): "
                "the model is drifting off the data. Raise fm_weight_%s, lower learning_rate or beta_%s, or set "
                "winner_preserving_mu 0.9.",
                name,
                100 * mean,
                self.window,
                step,
                name,
                name,
            )

    def _watch_share(self, name: str, step: int, share: float) -> None:
        mean = self.shares[name].mean(step, share)
        if self._starts("share", name, mean is not None and mean < LEAST_GRADIENT_SHARE):
            assert mean is not None
            logger.warning(
                "Only %.1f %% of the gradient has come from %s over the last %d steps (now step %d): it hardly learns. "
                "Raise %s_weight or beta_%s.",
                100 * mean,
                name,
                self.window,
                step,
                name,
                name,
            )

    def _starts(self, alarm: str, name: str, rings: bool) -> bool:
        """Whether an alarm begins to ring; it is told once, until it has been silent."""
        was_ringing = (alarm, name) in self.alarmed
        (self.alarmed.add if rings else self.alarmed.discard)((alarm, name))
        return rings and not was_ringing


class TrainerWithReference(Protocol):
    """What keeping a reference needs of a trainer."""

    model: nn.Module
    args: AVDPOConfig
    frozen_copy: FrozenCopy | None


class ReferenceKeeper(TrainerCallback):
    """Gives a frozen copy the policy's precision, and lets it follow the policy every so many steps where asked to."""

    def __init__(self, trainer: TrainerWithReference) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        assert self.trainer.frozen_copy is not None
        self.trainer.frozen_copy.match_precision(self.trainer.model)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        settings = self.trainer.args
        if settings.sync_ref_model and state.global_step % settings.ref_model_sync_steps == 0:
            assert self.trainer.frozen_copy is not None
            self.trainer.frozen_copy.move_towards(self.trainer.model, settings.ref_model_mixup_alpha)
