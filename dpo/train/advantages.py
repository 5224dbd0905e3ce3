"""The advantages on which the candidates of a dataset train, computed from its scores before the first step.

Imports no torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from core.text_table import table_lines
from dpo.data.groups import RewardColumn
from dpo.data.schema import MODALITIES
from dpo.loss.advantages import (
    AUDIO_VIDEO,
    Routing,
    adv_mode,
    default_routing,
    group_advantages,
    oriented,
    route,
    shuffled_within_groups,
    summed,
    tied_groups,
)
from dpo.train.nft_settings import NFTSettings

Floats = NDArray[np.float64]


class ScoredCandidates(Protocol):
    """Interface of `dpo.data.group_dataset.GroupDataset` for advantages."""

    rewards: dict[str, RewardColumn]
    source: str

    @property
    def scores(self) -> Floats:
        """The scores (N, K) in the order of `rewards`; NaN where a score failed."""

    @property
    def prompt_ids(self) -> Sequence[str]: ...


@dataclass(frozen=True)
class RewardChoice:
    """The rewards that train, with their weights.

    Attributes:
        normalise: divide each modality's advantage by the sum of its weights; weights that the user gave stay as they
            are.
    """

    routing: Routing
    weights: dict[str, float]
    normalise: bool

    @property
    def used(self) -> list[str]:
        """The rewards that reach a loss."""
        rows = zip(self.routing.rewards, self.routing.matrix, strict=True)
        return [name for name, row in rows if self.weights[name] and row.any()]


@dataclass(frozen=True, eq=False)
class CandidateAdvantages:
    """Advantages of N candidates by modality, each (N,).

    Attributes:
        choice: the rewards from which they are made.
        routed: as measured, before the clip; NaN where a reward failed, 0 for a modality whose loss has weight 0.
        trained: after clip, mode and the shuffle of a control experiment.
        usable: (N,) bool, whether no reward that trains failed; other candidates do not train.
    """

    choice: RewardChoice
    routed: dict[str, Floats]
    trained: dict[str, Floats]
    usable: NDArray[np.bool_]


def candidate_advantages(dataset: ScoredCandidates, settings: NFTSettings) -> CandidateAdvantages:
    """Compute the advantages of a dataset's candidates.

    A score is centred by its group and divided by the scale of its reward; the rewards are then summed by modality,
    clipped, and limited by `adv_mode` (docs/upstream/nft.md, sections 2 and 5).

    Raises:
        ValueError: if a reward is unknown, a modality has none, or no candidate has all its scores.
    """
    choice = choose_rewards(dataset.rewards, settings, dataset.source)
    per_reward = group_advantages(_scores(dataset, choice), dataset.prompt_ids, scale=settings.adv_scale)
    trained = route(per_reward, choice.weights, choice.routing, normalise=choice.normalise)
    routed = {name: trained.get(name, np.zeros(len(per_reward))) for name in MODALITIES}
    columns = np.stack(list(routed.values()), axis=1)
    usable = np.asarray(~np.isnan(columns).any(axis=1))
    if not usable.any():
        raise ValueError(
            f"{dataset.source}: each candidate lacks a score of {', '.join(choice.used)}: score the candidates again, "
            "or leave the reward that fails out of reward_mix."
        )
    if settings.shuffle_advantages:
        columns = shuffled_within_groups(columns, dataset.prompt_ids, seed=settings.seed, clip=settings.adv_clip)
    columns = adv_mode(np.clip(columns, -settings.adv_clip, settings.adv_clip), settings.adv_mode)
    return CandidateAdvantages(choice, routed, dict(zip(MODALITIES, columns.T, strict=True)), usable)


def evaluation_advantages(
    dataset: ScoredCandidates, settings: NFTSettings, training: CandidateAdvantages
) -> CandidateAdvantages:
    """Compute the advantages of candidates that are not trained on, for the rewards that train.

    Raises:
        ValueError: in the cases of `candidate_advantages`, or if other rewards would be used than in training.
    """
    found = candidate_advantages(dataset, settings)
    if found.choice.used != training.choice.used:
        here, there = ", ".join(found.choice.used), ", ".join(training.choice.used)
        raise ValueError(
            f"{dataset.source} would be measured by {here}, but {there} train: score both with the same rewards in the "
            "same order, or name the rewards in reward_mix."
        )
    return found


def choose_rewards(rewards: Mapping[str, RewardColumn], settings: NFTSettings, source: str) -> RewardChoice:
    """Return the rewards that train by the settings `routing` and `reward_mix`.

    A reward without a modality trains only if `reward_mix` or `routing` names it. With "routed" it then goes to both
    losses, as in OmniNFT (docs/upstream/nft.md, section 5).

    Raises:
        ValueError: if a named reward has no column, or a loss has no reward.
    """
    trained = [name for name in MODALITIES if getattr(settings, f"{name}_weight") > 0]
    if isinstance(settings.routing, dict):
        names = _known(settings.routing, rewards, "routing", source)
        rows = [[float(settings.routing[reward].get(name, 0.0)) for name in trained] for reward in names]
        matrix = np.array(rows).reshape(len(names), len(trained))
        return RewardChoice(Routing(tuple(names), tuple(trained), matrix), dict.fromkeys(names, 1.0), False)
    mix = settings.reward_mix
    ranked = [name for name, column in rewards.items() if column.modality is not None]
    names = ranked if mix is None else _known(mix, rewards, "reward_mix", source)
    if not names:
        raise ValueError(
            f"{source} has the rewards {', '.join(rewards)}, none of which ranking assigns to a modality: name those "
            "that train in reward_mix."
        )
    if settings.routing == "summed":
        routing = summed(names, trained)
    else:
        declared = {name: rewards[name].modality or AUDIO_VIDEO for name in names}
        routing = default_routing(
            {name: judged for name, judged in declared.items() if judged in (*trained, AUDIO_VIDEO)}, trained
        )
    weights = {name: 1.0 if mix is None else float(mix[name]) for name in routing.rewards}
    return RewardChoice(routing, weights, mix is None)


def describe(dataset: ScoredCandidates, advantages: CandidateAdvantages, clip: float) -> list[str]:
    """Return what a plan shows of groups, scores and advantages, line by line."""
    choice, ids = advantages.choice, np.asarray(dataset.prompt_ids)
    sizes = Counter(Counter(ids.tolist()).values())
    scores = _scores(dataset, choice)
    failed, tied = np.isnan(scores).sum(axis=0), tied_groups(scores, ids)
    rows = [
        [name, _losses(choice, name), f"{failed[number]} failed scores", f"{tied[number]} groups of equal scores"]
        for number, name in enumerate(choice.routing.rewards)
    ]
    lines = [
        f"groups: {', '.join(f'{count} of {size} candidates' for size, count in sorted(sizes.items(), reverse=True))}",
        *(f"  {line}" for line in table_lines(rows, "llrr")),
    ]
    for name in choice.routing.modalities:
        values = advantages.routed[name][advantages.usable]
        lines.append(
            f"advantages of {name}: standard deviation {values.std():.2f}, {np.mean(np.abs(values) > clip):.0%} beyond "
            f"adv_clip {clip:g}"
        )
    left_out = int((~advantages.usable).sum())
    return lines + ([f"left out: {left_out} candidates with a failed score"] if left_out else [])


def _losses(choice: RewardChoice, reward: str) -> str:
    shares = choice.routing.matrix[choice.routing.rewards.index(reward)] * choice.weights[reward]
    parts = zip(choice.routing.modalities, shares, strict=True)
    return ", ".join(f"{name} {share:g}" for name, share in parts if share) or "unused"


def _scores(dataset: ScoredCandidates, choice: RewardChoice) -> Floats:
    """Return the scores (N, K) of the chosen rewards, higher is better."""
    places = {name: number for number, name in enumerate(dataset.rewards)}
    names = choice.routing.rewards
    better = [dataset.rewards[name].higher_is_better for name in names]
    return oriented(dataset.scores[:, [places[name] for name in names]], better)


def _known(named: Mapping[str, object], rewards: Mapping[str, RewardColumn], setting: str, source: str) -> list[str]:
    unknown = [name for name in named if name not in rewards]
    if unknown or not named:
        what = f"names {', '.join(unknown)}" if unknown else "is empty"
        raise ValueError(f"{setting} {what}, but {source} has the rewards {', '.join(rewards)}: name some of these.")
    return list(named)
