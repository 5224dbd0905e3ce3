"""Batches of candidates: whole groups, equal parts in one step, and what becomes of incomplete groups."""

from __future__ import annotations

import pytest

from dpo.data.group_batches import GroupBatchSampler

GROUPS = [f"p{number // 4}" for number in range(24)]  # six groups of four


def sampler(size, groups=GROUPS, labels=None, **settings):
    return GroupBatchSampler(labels or ["a"] * len(groups), groups, lambda label: size, 3, **settings)


def rows(batches):
    return [[key.row for key in batch] for batch in batches]


def names(batch):
    return {GROUPS[row] for row in batch}


@pytest.mark.parametrize("size", [4, 8, 12])
def test_batches_hold_whole_groups(size):
    made = rows(sampler(size, whole=True))
    assert sorted(row for batch in made for row in batch) == list(range(24))
    assert [len(batch) for batch in made] == [size] * (24 // size)
    assert all(len(names(batch)) == size // 4 for batch in made)


@pytest.mark.parametrize("size", [1, 2])
def test_parts_of_a_group_are_equal_and_in_one_step(size):
    batches = sampler(size, whole=True)
    made, parts = rows(batches), batches.batches_per_step
    assert parts == 4 // size
    for start in range(0, len(made), parts):
        step = made[start : start + parts]
        assert [len(batch) for batch in step] == [size] * parts
        assert len(set.union(*map(names, step))) == 1


def test_groups_that_lost_a_member_stay_whole():
    labels: list[str | None] = ["a"] * 24
    labels[5] = None
    made = rows(sampler(8, labels=labels, whole=True))
    assert sorted(map(len, made)) == [7, 8, 8]
    assert all(len(names(batch)) == 2 for batch in made)
    assert 5 not in {row for batch in made for row in batch}


def test_a_group_with_fewer_members_than_parts_comes_last_and_shifts_no_step():
    labels: list[str | None] = ["a"] * 24
    labels[8:10] = None, None
    made = rows(sampler(1, labels=labels, whole=True))
    assert [names(batch) for batch in made[-2:]] == [{"p2"}] * 2
    assert all(len(set.union(*map(names, made[start : start + 4]))) == 1 for start in range(0, 20, 4))


@pytest.mark.parametrize("size", [3, 6, 10])
def test_sizes_that_cut_groups_unevenly_are_refused_or_reduced(size):
    with pytest.raises(ValueError, match=f"is {size}, but groups have 4 candidates.* give a multiple or a divisor"):
        sampler(size, whole=True)
    made = rows(sampler(size, whole=True, fit=True))
    assert {len(batch) for batch in made} <= {{3: 2, 6: 4, 10: 8}[size], 4}


def test_shapes_are_never_mixed_and_come_in_any_order():
    """Groups of eight in parts of two and whole groups of four fill steps of four batches."""
    groups = [f"long {number // 8}" for number in range(32)] + [f"short {number // 2}" for number in range(16)]
    labels = ["long"] * 32 + ["short"] * 16
    batches = GroupBatchSampler(labels, groups, lambda label: 2, 3, whole=True)
    made = rows(batches)
    assert batches.batches_per_step == 4
    steps = [made[start : start + 4] for start in range(0, len(made), 4)]
    kinds = [{labels[row] for batch in step for row in batch} for step in steps]
    assert [len(kind) for kind in kinds] == [1] * 6
    assert kinds not in ([{"long"}] * 4 + [{"short"}] * 2, [{"short"}] * 2 + [{"long"}] * 4)
    for step, kind in zip(steps, kinds, strict=True):
        if kind == {"long"}:
            assert len({groups[row] for batch in step for row in batch}) == 1


@pytest.mark.parametrize("settings", [{"whole": True}, {}])
def test_order_is_a_function_of_seed_and_epoch(settings):
    batches = sampler(4, **settings)
    first = list(batches)
    assert list(batches) == first == list(sampler(4, **settings))
    batches.set_epoch(1)
    assert rows(batches) != rows(first)
    assert {key.epoch for batch in batches for key in batch} == {1}


def test_without_whole_groups_any_size_is_cut_from_their_sequence():
    made = rows(sampler(5))
    assert [len(batch) for batch in made if len(batch) != 5] == [4]
    assert all(len(names(batch)) <= 3 for batch in made)
    assert len(rows(sampler(5, drop_last=True))) == 4
