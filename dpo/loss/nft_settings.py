"""Names of the choices of negative-aware fine-tuning, and the check of its settings. Imports no torch."""

from __future__ import annotations

from typing import Literal, get_args

NFTForm = Literal["plain", "adaptive"]
Prediction = Literal["velocity", "x0"]
AdvantageScale = Literal["group", "table", "mad"]
AdvantageMode = Literal["all", "positive_only", "negative_only", "one_only", "binary"]
DecaySchedule = Literal["copy", "ramp", "late_ramp"]


def check_nft(beta: float, clip: float, form: str, prediction: str) -> None:
    """Raise ValueError for settings of `dpo.loss.nft.nft_loss` that are unknown or out of range."""
    for setting, value in (("beta", beta), ("clip", clip)):
        if not 0 < value < float("inf"):  # NaN fails this as well
            raise ValueError(f"{setting} is {value}, and the loss divides by it: give a finite number > 0.")
    check_choice("form", form, get_args(NFTForm))
    check_choice("prediction", prediction, get_args(Prediction))


def check_choice(setting: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ValueError if `value` is none of the choices."""
    if value not in choices:
        raise ValueError(f"{setting} {value!r} is unknown: choose one of {', '.join(choices)}.")
