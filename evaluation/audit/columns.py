"""The reward columns of a table: direction, modality, and whether they see the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from core.score_origin import origin_of
from evaluation.compare.model_table import metric_directions
from rewards.metrics import METRIC_COLUMNS, MODALITY_METRICS, TEXT_METRICS
from rewards.registry import MissingPackageError, get_reward

_AUDIO_AXES = ("content_enjoyment", "content_usefulness", "production_complexity", "production_quality")
# Of this project's columns; imagebind and verifiable have columns of every modality.
_MODALITY = {name: modality for modality, names in MODALITY_METRICS.items() for name in names}
_MODALITY |= {"text_alignment": "video", **dict.fromkeys(_AUDIO_AXES, "audio")}


@dataclass(frozen=True)
class RewardColumn:
    """A column of scores that a training would use.

    Attributes:
        reward: name of the reward that computed it; None if the table does not record it.
        needs: `needs` of that reward, of "video", "audio" and "text"; None if it is not known.
    """

    name: str
    higher_is_better: bool
    reward: str | None = None
    needs: frozenset[str] | None = None

    @property
    def sign(self) -> int:
        return 1 if self.higher_is_better else -1

    @property
    def modality(self) -> str | None:
        """Return "video", "audio" or "audio_video"; None if it is not known."""
        if self.name in _MODALITY:
            return _MODALITY[self.name]
        seen = (self.needs or frozenset()) & {"video", "audio"}
        return "audio_video" if len(seen) == 2 else next(iter(seen), None)

    @property
    def sees_prompt(self) -> bool | None:
        """Return whether the score depends on the prompt; None if that is not known.

        A reward declares it by "text" in `needs`. For this project's columns the definition decides: a reward with
        several columns may use the prompt in some of them.
        """
        if self.name in METRIC_COLUMNS:
            return self.name in TEXT_METRICS
        return None if self.needs is None else "text" in self.needs


def reward_columns(schema: pa.Schema, names: Sequence[str] = ()) -> list[RewardColumn]:
    """Return the columns of a scores table whose direction is known, in the order of the table.

    Args:
        schema: of the scores table, with the metadata that pipeline.score writes.
        names: of the wanted columns; all by default.

    Raises:
        ValueError: there is no such column, or its direction is not known.
    """
    directions, _ = metric_directions(schema)
    for name in names:
        if name not in directions:
            raise ValueError(
                f"columns names {name!r}, but the table has no score of this name with a known direction. "
                f"It has: {', '.join(directions) or 'none'}."
            )
    return [_column(schema, name, directions[name]) for name in directions if not names or name in names]


def _column(schema: pa.Schema, name: str, higher_is_better: bool) -> RewardColumn:
    reward = origin_of(schema, name).reward
    stated = (schema.field(name).metadata or {}).get(b"needs")
    needs = _needs(reward) if stated is None else frozenset(stated.decode().split())
    return RewardColumn(name, higher_is_better, reward, needs)


def _needs(reward: str | None) -> frozenset[str] | None:
    """Return what a registered reward needs, for tables from before this was recorded."""
    if reward is None:
        return None
    try:
        return get_reward(reward).needs
    except (ValueError, MissingPackageError):  # of another installation
        return None
