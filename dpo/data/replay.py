"""Replay of stored groups: candidates of earlier rounds beside those of the present one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from datasets import Dataset, concatenate_datasets

from dpo.data.group_dataset import GroupDataset
from dpo.data.schema import CANDIDATES


def with_replay(dataset: GroupDataset, earlier: Sequence[GroupDataset], share: float, seed: int) -> GroupDataset:
    """Return the dataset with whole groups drawn from earlier ones, so that they make about `share` of all rows.

    Replayed groups come from another policy than the one that is trained. Their centred advantages still say which of
    their members are better; docs/upstream/nft.md, section 8, has the bias. Ids of replayed rows begin with
    `replay-N/`, because a prompt's new candidates are another group than its former ones.

    Args:
        dataset: the groups of the present round.
        earlier: groups of earlier rounds, in any number.
        share: share of replayed rows among all, in [0, 1); all earlier groups are taken if they are fewer.
        seed: seed of the choice.

    Raises:
        ValueError: if an earlier dataset has other rewards, or a value is not finite.
    """
    for number, one in enumerate(earlier):
        if one.rewards != dataset.rewards:
            raise ValueError(
                f"replay {one.source} has the rewards {', '.join(one.rewards)}, but {dataset.source} has "
                f"{', '.join(dataset.rewards)}: score both by the same rewards, or leave it out (number {number + 1})."
            )
    wanted = share / (1 - share) * len(dataset)
    groups = [(number, prompt) for number, one in enumerate(earlier) for prompt in dict.fromkeys(one.prompt_ids)]
    order = np.random.default_rng(seed).permutation(len(groups))
    chosen: dict[int, set[str]] = {number: set() for number in range(len(earlier))}
    sizes = [_group_sizes(one) for one in earlier]
    count = 0
    for place in order:
        number, prompt = groups[place]
        if count + sizes[number][prompt] / 2 > wanted:
            break
        chosen[number].add(prompt)
        count += sizes[number][prompt]
    parts = [_renamed(earlier[number], prompts, number) for number, prompts in chosen.items() if prompts]
    if not parts:
        return dataset
    rows = concatenate_datasets([dataset.rows.with_format(None), *parts])
    for one in (dataset, *earlier):
        one.check_finite()
    return GroupDataset(rows, dataset.negative_text, dataset.rewards, dataset.source, is_finite=True)


def _group_sizes(dataset: GroupDataset) -> dict[str, int]:
    prompts, counts = np.unique(dataset.prompt_ids, return_counts=True)
    return dict(zip(prompts.tolist(), counts.tolist(), strict=True))


def _renamed(dataset: GroupDataset, prompts: set[str], number: int) -> Dataset:
    """Return the rows of these prompts, with ids that no other dataset has."""
    rows = dataset.rows.with_format(None)
    rows = rows.select([row for row, prompt in enumerate(dataset.prompt_ids) if prompt in prompts])
    for column in (CANDIDATES.key, "prompt_id"):
        names = [f"replay-{number + 1}/{name}" for name in rows[column]]
        feature = rows.features[column]
        rows = rows.remove_columns(column).add_column(column, names, feature=feature)
    return rows
