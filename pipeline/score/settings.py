"""Which rewards a run scores with: the settings, and what they come to before any worker is started."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from jobs.stage import WorkerConfig, setting
from rewards import Reward, expand_names, get_reward
from rewards.base import Protocol
from rewards.registry import check_distinct
from rewards.weights import PRESETS, find_weights, weights_identity


@dataclass(frozen=True, kw_only=True)
class RewardConfig(WorkerConfig):
    """How candidates are scored."""

    rewards: list[str] = field(
        default_factory=lambda: ["verifiable"],
        metadata={"help": "Reward names, 'learned' for all four networks, or package.module:Class for your own."},
    )
    reward_weights: str | None = setting(
        None, "Where the rewards' weights are: the folder that model.fetch filled, or the preset 'tiny'."
    )
    protocol: Protocol = field(
        default="correct", metadata={"help": "How to score: correctly, or as the release does, defects included."}
    )
    pool_per_reward: bool = setting(
        False, "One pool of workers per reward, one after another: for rewards that do not fit on a GPU together."
    )
    clip_batch_size: int = setting(8, "Clips of a prompt that a reward is given at once.")
    num_decoders: int = setting(
        2, "Threads per worker that decode the next prompt of a task (see batch_size) while one is scored."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("clip_batch_size", "num_decoders"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least 1.")


@dataclass(frozen=True)
class ChosenReward:
    """A reward as a run uses it. Scores are stored by its name, `version` and `weights`."""

    spec: str  # the name or dotted path that found the class
    reward: type[Reward]
    version: str  # under the run's protocol
    weights_path: str | None = None  # what `load` is given; None for a reward without weights
    weights: str | None = None  # changes when the content of the files does


def choose_rewards(config: RewardConfig) -> dict[str, ChosenReward]:
    """The rewards of a configuration by name or path, groups expanded. Reads a little of the weights, loads nothing.

    Raises:
        ValueError: none is given, one is not known or comes twice, two share a name or column, or weights are missing.
    """
    specs = expand_names(config.rewards)
    if not specs:
        raise ValueError("rewards is empty, so there is nothing to score with. Name at least one, such as verifiable.")
    rewards = {spec: get_reward(spec) for spec in specs}
    check_distinct(rewards.values())
    weights = {spec: _find_weights(reward, config.reward_weights) for spec, reward in rewards.items()}
    return {
        spec: ChosenReward(spec, reward, reward.version_under(config.protocol), *weights[spec])
        for spec, reward in rewards.items()
    }


def _find_weights(reward: type[Reward], given: str | None) -> tuple[str | None, str | None]:
    """What to load, for workers in any folder, and its identity."""
    if reward.published is None:
        return None, None
    found = find_weights(given, reward.name, reward.published)
    assert given is not None, "find_weights refuses None"
    path = given if found.is_relative_to(PRESETS) else str(Path(given).resolve())
    return path, weights_identity(reward, found)
