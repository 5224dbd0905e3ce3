"""The rewards of a run: the settings, and their resolution to classes and weights before any worker starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from jobs.stage import WorkerConfig, setting
from rewards.base import Protocol, Reward
from rewards.registry import check_distinct, expand_names, get_reward
from rewards.weights import PRESETS, find_weights, weights_identity


@dataclass(frozen=True, kw_only=True)
class RewardConfig(WorkerConfig):
    """Settings for scoring candidates."""

    rewards: list[str] = field(
        default_factory=lambda: ["verifiable"],
        metadata={"help": "Reward names, 'learned' for all four networks, or package.module:Class for your own."},
    )
    reward_weights: str | None = setting(
        None, "Location of the rewards' weights: the folder that model.fetch filled, or the preset 'tiny'."
    )
    protocol: Protocol = field(
        default="correct",
        metadata={"help": "Scoring protocol: correct, or javisbench, which reproduces the release with its defects."},
    )
    pool_per_reward: bool = setting(
        False, "Run one pool of workers per reward, in turn, for rewards that do not fit on a GPU together."
    )
    clip_batch_size: int = setting(8, "Number of clips of a prompt that a reward scores at once.")
    num_decoders: int = setting(
        2, "Threads per worker that decode the next prompt of a task (batch_size) while one is scored."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("clip_batch_size", "num_decoders"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least 1.")


@dataclass(frozen=True)
class ChosenReward:
    """A reward as a run uses it. Scores are stored under its name, `version` and `weights`."""

    spec: str  # the name or dotted path that the user gave
    reward: type[Reward]
    version: str  # under the run's protocol
    weights_path: str | None = None  # argument of `load`; None for a reward without weights
    weights: str | None = None  # changes when the content of the files does


def choose_rewards(config: RewardConfig) -> dict[str, ChosenReward]:
    """Return the rewards of a configuration by name or path, groups expanded. Identifies weights without loading them.

    Raises:
        ValueError: no reward is given, one is unknown or repeated, two share a name or column, or weights are missing.
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
    """Return the path to load, valid in any working directory, and the identity of the weights."""
    if reward.published is None:
        return None, None
    found = find_weights(given, reward.name, reward.published)
    assert given is not None, "find_weights refuses None"
    path = given if found.is_relative_to(PRESETS) else str(Path(given).resolve())
    return path, weights_identity(reward, found)
