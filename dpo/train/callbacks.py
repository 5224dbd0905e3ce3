"""Callbacks of preference training: warnings about known failures, and updates of the frozen reference."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from dpo.data.schema import MODALITIES

if TYPE_CHECKING:
    from torch import nn

    from dpo.loss.reference import FrozenCopy
    from dpo.train.config import AVDPOConfig

# A rise of up to one percent is noise from few pairs; in collapsing runs, rises of tens of percent were observed.
RISE_TOLERANCE = 0.01
LEAST_GRADIENT_SHARE = 0.02  # a modality below this share hardly trains

logger = logging.getLogger(__name__)


class Window:
    """Running mean of a value over the last `length` steps."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.history: deque[tuple[int, float]] = deque()

    def mean(self, step: int, value: float) -> float | None:
        """Add a value and return the mean over the window; None until `length` steps have passed."""
        self.history.append((step, value))
        while len(self.history) > 1 and self.history[1][0] <= step - self.length:
            self.history.popleft()
        if step - self.history[0][0] < self.length:
            return None
        return sum(value for _, value in self.history) / len(self.history)


class TrainingAlarms(TrainerCallback):
    """Warns, per modality, if the winner's error exceeds the reference's, or if the gradient share is very small.

    DPO can widen the margin by making both clips less likely, the loser faster. The margin then looks good while the
    samples deteriorate. A modality whose gradient is a few hundredths of the other's does not learn, whatever its own
    loss does; in joint audio-video training this is known to happen to audio.
    """

    def __init__(self, window: int, preferred: Sequence[str] = MODALITIES) -> None:
        """Set the number of steps over which values are averaged, and the modalities with a preference.

        The others, whose beta is 0, are trained by the small flow term alone; their share is not watched.
        """
        self.window = window
        self.preferred = tuple(preferred)
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
            if name in self.preferred and logs.get(
                f"grad_share/{name}"
            ):  # skips a share of 0: the modality's weight is 0
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
        """Return true if an alarm starts; an alarm warns again only after it has stopped."""
        was_ringing = (alarm, name) in self.alarmed
        (self.alarmed.add if rings else self.alarmed.discard)((alarm, name))
        return rings and not was_ringing


class TrainerWithReference(Protocol):
    """The attributes of a trainer that `ReferenceKeeper` uses."""

    model: nn.Module
    args: AVDPOConfig
    frozen_copy: FrozenCopy | None


class ReferenceKeeper(TrainerCallback):
    """Casts the frozen copy to the policy's precision, and with sync_ref_model moves it towards the policy."""

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
