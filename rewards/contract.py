"""The checks that a class declares all that a `Judge` or a `Reward` must declare, before anything is measured."""

from __future__ import annotations

import inspect

from rewards.base import Judge, Reward
from rewards.metrics import MODALITY_METRICS

_ATTRIBUTES = {
    "Judge": ("name", "version", "outputs", "needs"),
    "Reward": ("name", "version", "columns", "higher_is_better", "needs", "licence"),
}
_NEEDS = ("video", "audio", "text")
# Other columns of a table of scores, and columns that are computed from its metrics.
_RESERVED = frozenset(
    {
        "candidate_id",
        "prompt_id",
        "prompt",
        "video_path",
        "audio_path",
        "error",
        "reasons",
        *MODALITY_METRICS,
        "overall",
    }
)


def check_complete(target: str, judge: type[Judge]) -> None:
    """Raise ValueError where a class lacks an attribute or a method, or declares one that cannot be used.

    Args:
        target: the dotted path of the class, for messages.
    """
    what, method = ("Reward", "score") if issubclass(judge, Reward) else ("Judge", "measure")
    missing = [name for name in _ATTRIBUTES[what] if not hasattr(judge, name)]
    if missing:
        raise ValueError(f"{what} {target!r} does not say its {', '.join(missing)}. Set them as class attributes.")
    if inspect.isabstract(judge):
        raise ValueError(f"{what} {target!r} has no method {method}(clips, prompts). Give it one; see rewards/base.py.")
    if isinstance(judge.needs, str) or not judge.needs or not set(judge.needs) <= set(_NEEDS):
        raise ValueError(  # parts that it does not name are not decoded
            f"{what} {target!r} says that it needs {judge.needs!r}. Make needs a frozenset of {', '.join(_NEEDS)}."
        )
    if issubclass(judge, Reward):
        _check_columns(target, judge)


def _check_columns(target: str, reward: type[Reward]) -> None:
    if taken := _RESERVED.intersection(reward.columns):
        raise ValueError(
            f"Reward {target!r} yields the column {min(taken)!r}, which means something else in tables of scores. "
            "Rename it."
        )
    if set(reward.columns) != set(reward.higher_is_better):
        raise ValueError(
            f"Reward {target!r} yields the columns {list(reward.columns)} but gives directions for "
            f"{list(reward.higher_is_better)}. Make higher_is_better name each column once."
        )
