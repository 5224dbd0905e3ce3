from __future__ import annotations

from collections import Counter

import pytest

from dpo.data.replay import with_replay
from tests.dpo.dpo_helpers import make_group_rows, make_groups


def parts(dataset):
    """Return the rows of the present round, and those of each replayed group."""
    replayed = Counter(prompt for prompt in dataset.prompt_ids if prompt.startswith("replay-"))
    return len(dataset) - sum(replayed.values()), replayed


@pytest.mark.parametrize(("share", "num_groups"), [(0.25, 1), (0.5, 3), (0.9, 6)])
def test_whole_groups_are_replayed_up_to_the_share(share, num_groups):
    own, earlier = make_groups(make_group_rows(3, 4)), [make_groups(make_group_rows(3, 4, seed=n)) for n in (1, 2)]
    count, replayed = parts(with_replay(own, earlier, share, seed=0))
    assert count == 12
    assert len(replayed) == num_groups  # of the six that there are
    assert set(replayed.values()) == {4}


def test_a_prompt_that_comes_again_is_another_group_with_its_own_scores():
    own, earlier = make_groups(make_group_rows(2, 4)), make_groups(make_group_rows(2, 4, seed=1))
    assert set(own.prompt_ids) == set(earlier.prompt_ids)
    both = with_replay(own, [earlier], 0.5, seed=0)
    assert len(set(both.prompt_ids)) == 4
    assert len(set(both.rows["candidate_id"])) == 16
    for name, replayed in (("scores", True), ("scores", False)):
        rows = [row for row, prompt in enumerate(both.prompt_ids) if prompt.startswith("replay-") == replayed]
        expected = sorted(map(tuple, getattr(earlier if replayed else own, name).tolist()))
        assert sorted(map(tuple, getattr(both, name)[rows].tolist())) == expected


def test_the_choice_depends_on_the_seed_alone():
    own, earlier = make_groups(make_group_rows(2, 4)), [make_groups(make_group_rows(8, 4, seed=1))]
    chosen = [set(parts(with_replay(own, earlier, 0.5, seed))[1]) for seed in (0, 0, 1, 2)]
    assert chosen[0] == chosen[1]
    assert len({frozenset(one) for one in chosen}) > 1


def test_groups_scored_by_other_rewards_are_refused():
    own, other = make_groups(make_group_rows(2, 4)), make_groups(make_group_rows(2, 4, seed=1))
    other.rewards.pop("desync")
    with pytest.raises(ValueError, match="score both by the same rewards"):
        with_replay(own, [other], 0.5, seed=0)
