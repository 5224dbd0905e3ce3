"""Rewards as metrics: what `rewards` scores, an evaluation averages, without a second implementation."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from evaluation.judges.base import Extractor
from rewards.base import Prompt, Protocol, Reward
from rewards.registry import get_reward

if TYPE_CHECKING:
    from torch import Tensor

    from media.clip import AVClip


class RewardExtractor(Extractor):
    """The scores of one reward. `reward_extractor` makes its subclasses, one for each reward."""

    reward_class: ClassVar[type[Reward]]

    def __init__(self, reward: Reward) -> None:
        self.reward = reward
        self.version = reward.version

    @classmethod
    def version_under(cls, protocol: Protocol) -> str:
        return cls.reward_class.version_under(protocol)

    @classmethod
    def load(
        cls, path: str | None = None, device: str = "cpu", dtype: str = "float32", protocol: Protocol = "correct"
    ) -> Self:
        """As the reward itself loads; `path` may be a preset's name such as "tiny" where the reward has weights."""
        return cls(cls.reward_class.load(path, device=device, dtype=dtype, protocol=protocol))

    @classmethod
    def companions(cls, weights: Path) -> list[Path]:
        return cls.reward_class.companions(weights)

    def frames(self, num_frames: int, fps: float) -> Collection[int] | None:
        return self.reward.frames(num_frames, fps)

    def extract(self, clips: list[AVClip], prompts: list[Prompt]) -> dict[str, Tensor]:
        """The reward's columns, float32 (B,), on the CPU."""
        return {column: scores.float().cpu() for column, scores in self.reward.score(clips, prompts).items()}


@cache
def reward_extractor(name: str) -> type[RewardExtractor]:
    """The extractor with the name, columns, weights and protocols of a reward; the same class at every call.

    Args:
        name: of a registered reward, or "package.module:Class", as for `rewards.get_reward`, whose errors it raises.
    """
    reward = get_reward(name)
    attributes = {
        "__doc__": reward.__doc__,
        "__module__": __name__,
        "reward_class": reward,
        "name": reward.name,
        "version": reward.version,
        "outputs": dict.fromkeys(reward.columns),
        "needs": reward.needs,
        "published": reward.published,
        "protocols": reward.protocols,
    }
    return type(f"{reward.__name__}Extractor", (RewardExtractor,), attributes)
