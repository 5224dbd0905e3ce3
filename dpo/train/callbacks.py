"""Callbacks of preference training: warnings about known failures, and updates of the frozen reference."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from dpo.data.schema import MODALITIES

if TYPE_CHECKING:
    from torch import nn

    from dpo.loss.reference import FrozenCopy
    from dpo.train.config import AVDPOConfig

# A rise of up to one percent is noise from few pairs; in collapsing runs, rises of tens of percent were observed.
RISE_TOLERANCE = 0.01
LEAST_GRADIENT_SHARE = 0.02  # a modality below this share hardly trains
LARGEST_DISTANCE = 0.1  # squared distance to the old policy over its error

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


class Alarms(TrainerCallback):
    """Warns, per modality, if the gradient share is very small; subclasses watch more.

    A modality whose gradient is a few hundredths of the other's does not learn, whatever its own loss does; in joint
    audio-video training this is known to happen to audio.
    """

    remedy: ClassVar[str]  # of a small share; {name} is the modality

    def __init__(self, window: int, preferred: Sequence[str] = MODALITIES) -> None:
        """Set the number of steps over which values are averaged, and the modalities with a preference.

        The others, whose beta is 0, are trained by the small flow term alone; their share is not watched.
        """
        self.window, self.preferred = window, tuple(preferred)
        self.windows: dict[tuple[str, str], Window] = {}  # (alarm, modality)
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
            self.watch(name, state.global_step, logs)
            share = logs.get(f"grad_share/{name}")
            if share and name in self.preferred:  # skips a share of 0: the modality's weight is 0
                self._watch_share(name, state.global_step, share)

    def watch(self, name: str, step: int, logs: dict[str, Any]) -> None:
        """Watch the values of a modality in a log line."""

    def starts(self, alarm: str, name: str, step: int, value: float, rings: Callable[[float], bool]) -> float | None:
        """Return the mean of a value over the window if an alarm starts; it starts again only after it has stopped."""
        mean = self.windows.setdefault((alarm, name), Window(self.window)).mean(step, value)
        if mean is None or not rings(mean):
            self.alarmed.discard((alarm, name))
            return None
        was_ringing = (alarm, name) in self.alarmed
        self.alarmed.add((alarm, name))
        return None if was_ringing else mean

    def _watch_share(self, name: str, step: int, share: float) -> None:
        mean = self.starts("share", name, step, share, lambda mean: mean < LEAST_GRADIENT_SHARE)
        if mean is not None:
            logger.warning(
                "Only %.1f %% of the gradient has come from %s over the last %d steps (now step %d): it hardly learns. "
                "%s",
                100 * mean,
                name,
                self.window,
                step,
                self.remedy.format(name=name),
            )


class TrainingAlarms(Alarms):
    """Warns, per modality, if the winner's error exceeds the reference's, or if the gradient share is very small.

    DPO can widen the margin by making both clips less likely, the loser faster. The margin then looks good while the
    samples deteriorate.
    """

    remedy = "Raise {name}_weight or beta_{name}."

    def watch(self, name: str, step: int, logs: dict[str, Any]) -> None:
        key = f"error/chosen/{name}"
        if key not in logs:
            return
        rise = self.starts("winner", name, step, logs[key] / logs[f"ref_{key}"] - 1, lambda mean: mean > RISE_TOLERANCE)
        if rise is not None:
            logger.warning(
                "The winner's %s error has been %.1f %% above the reference's over the last %d steps (now step %d): "
                "the model is drifting off the data. Raise fm_weight_%s, lower learning_rate or beta_%s, or set "
                "winner_preserving_mu 0.9.",
                name,
                100 * rise,
                self.window,
                step,
                name,
                name,
            )


class DistanceAlarms(Alarms):
    """Warns, per modality, if the policy leaves the old policy far behind, or if the gradient share is very small.

    With plain errors, the best velocity of a sample lies within the old error over nft_beta^2 of the old one; a large
    part of that distance is not a step along the rewards any more, but single samples learned by heart.
    """

    remedy = "Raise {name}_weight."

    def watch(self, name: str, step: int, logs: dict[str, Any]) -> None:
        key = f"distance/old/{name}"
        if key not in logs:
            return
        gap = self.starts(
            "distance", name, step, logs[key] / logs[f"error/old/{name}"], lambda mean: mean > LARGEST_DISTANCE
        )
        if gap is not None:
            logger.warning(
                "The squared distance between the %s velocities of the policy and of the old policy has been %.0f %% "
                "of the old policy's error over the last %d steps (now step %d): the model is leaving the policy that "
                "made the candidates. Lower learning_rate or the number of steps, raise kl_weight_%s or adv_clip, or "
                "sample new candidates.",
                name,
                100 * gap,
                self.window,
                step,
                name,
            )


class TrainerWithReference(Protocol):
    """The attributes of a trainer that `ReferenceKeeper` uses."""

    model: nn.Module
    frozen_copy: FrozenCopy | None


class ReferenceKeeper(TrainerCallback):
    """Casts the frozen copy to the policy's precision."""

    def __init__(self, trainer: TrainerWithReference) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        assert self.trainer.frozen_copy is not None
        self.trainer.frozen_copy.match_precision(self.trainer.model)


class ReferenceMover(TrainerCallback):
    """Moves the frozen copy towards the policy every `ref_model_sync_steps`, for sync_ref_model."""

    def __init__(self, trainer: TrainerWithReference, settings: AVDPOConfig) -> None:
        self.trainer = trainer
        self.settings = settings

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step % self.settings.ref_model_sync_steps == 0:
            assert self.trainer.frozen_copy is not None
            self.trainer.frozen_copy.move_towards(self.trainer.model, self.settings.ref_model_mixup_alpha)
