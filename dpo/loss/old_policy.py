"""The old policy of online training, which samples and is v_old: an adapter that follows the trained one.

See docs/upstream/nft.md, section 3. Training on stored samples needs none of this: there, the old policy is the model
that made the samples, and it stands still.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

import torch
from torch import Tensor, nn

from dpo.loss.nft_settings import DecaySchedule, check_choice

MAX_EMA_DECAY = 0.9
RAMP_PER_STEP, RAMP_MAX = 0.001, 0.5
LATE_RAMP_START, LATE_RAMP_PER_STEP, LATE_RAMP_MAX = 75, 0.0075, 0.999


def old_decay(schedule: DecaySchedule | float, step: int) -> float:
    """Return the share of itself that the old policy keeps in an update.

    Args:
        schedule: a constant share in [0, 1], or a published schedule: "copy" (type 0) is 0; "ramp" (type 1) is
            min(0.001 step, 0.5); "late_ramp" (type 2) is 0 up to step 75, then min(0.0075 (step - 75), 0.999).
        step: number of optimiser steps so far.

    Raises:
        ValueError: for another schedule, or a share outside [0, 1].
    """
    if isinstance(schedule, int | float):
        if not 0 <= schedule <= 1:
            raise ValueError(f"The decay of the old policy is {schedule}: give a share in [0, 1].")
        return float(schedule)
    check_choice("decay schedule", schedule, get_args(DecaySchedule))
    if schedule == "ramp":
        return min(RAMP_PER_STEP * step, RAMP_MAX)
    if schedule == "late_ramp":
        return min(LATE_RAMP_PER_STEP * max(step - LATE_RAMP_START, 0), LATE_RAMP_MAX)
    return 0.0


def ema_decay(step: int) -> float:
    """Return the share of itself that the averaged policy, which is evaluated and saved, keeps after a step."""
    return min((1 + step) / (10 + step), MAX_EMA_DECAY)


@torch.no_grad()
def move_towards(old: Mapping[str, Tensor], current: Mapping[str, Tensor], decay: float) -> None:
    """Set old = decay * old + (1 - decay) * current in place, tensor by tensor.

    For adapters this averages the factors A and B separately, as published: the product B A of the result is not the
    average of the products.

    Raises:
        ValueError: if the two have other names.
    """
    if set(old) != set(current):
        raise ValueError(
            f"{', '.join(sorted(set(old) ^ set(current)))} is in one policy alone: give adapters of the same layers."
        )
    for name, tensor in old.items():
        tensor.mul_(decay).add_(current[name].detach().to(tensor), alpha=1 - decay)


def adapter_tensors(model: nn.Module, adapter: str) -> dict[str, Tensor]:
    """Return the factors A and B of one adapter of a peft model; names are the same for every adapter."""
    part = f".{adapter}."
    return {
        name.replace(part, "."): parameter
        for name, parameter in model.named_parameters()
        if part in name and ("lora_A" in name or "lora_B" in name)
    }
