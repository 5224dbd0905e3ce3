"""Batches: one label each, a function of seed and epoch, told when there are none."""

from __future__ import annotations

import pytest

from model.data.batches import BucketBatchSampler


def sampler(labels, size=2, seed=7, drop_last=False):
    return BucketBatchSampler(lambda epoch: labels, lambda label: size, seed, drop_last)


def test_labels_are_never_mixed_and_every_row_comes_once():
    labels = ["a"] * 5 + ["b"] * 3 + [None] * 2
    batches = list(sampler(labels))
    assert len(batches) == len(sampler(labels)) == 5
    assert sorted(key.row for batch in batches for key in batch) == list(range(8))
    assert all(len({labels[key.row] for key in batch}) == 1 for batch in batches)


def test_order_is_a_function_of_seed_and_epoch():
    batches = sampler(["a"] * 20, size=4)
    first = list(batches)
    assert list(batches) == first
    batches.set_epoch(1)
    second = list(batches)
    assert [key.row for batch in second for key in batch] != [key.row for batch in first for key in batch]
    assert {key.epoch for batch in second for key in batch} == {1}
    batches.set_epoch(0)
    assert list(batches) == first == list(sampler(["a"] * 20, size=4))
    assert list(sampler(["a"] * 20, size=4, seed=8)) != first


def test_each_label_has_its_own_batch_size_and_the_rest_may_be_dropped():
    labels = ["short"] * 7 + ["long"] * 5
    sizes = {"short": 3, "long": 2}
    batches = list(BucketBatchSampler(lambda epoch: labels, sizes.__getitem__, 0, drop_last=True))
    assert sorted((labels[batch[0].row], len(batch)) for batch in batches) == [("long", 2)] * 2 + [("short", 3)] * 2


def test_an_epoch_has_as_many_batches_as_the_first_whatever_is_drawn():
    by_epoch = {0: ["a"] * 6, 1: ["a"] * 2 + [None] * 4, 2: ["a"] * 4 + ["b"] * 2}
    batches = BucketBatchSampler(by_epoch.__getitem__, lambda label: 2)
    for epoch in range(3):
        batches.set_epoch(epoch)
        assert len(list(batches)) == len(batches) == 3


def test_an_epoch_with_fewer_batches_repeats_all_of_them_in_turn():
    by_epoch = {0: ["a"] * 10, 1: ["a"] * 4 + [None] * 6}
    batches = BucketBatchSampler(by_epoch.__getitem__, lambda label: 2)
    batches.set_epoch(1)
    first, second, *repeated = batches
    assert sorted(key.row for key in first + second) == [0, 1, 2, 3]
    assert repeated == [first, second, first]


def test_no_batch_at_all_is_refused():
    assert len(sampler(["a"] * 5, drop_last=True)) == 2
    with pytest.raises(ValueError, match="lower the batch size"):
        sampler(["a", "b"], drop_last=True)
    with pytest.raises(ValueError, match="give other buckets"):
        sampler([None, None])


def test_a_later_epoch_without_a_batch_is_named():
    batches = BucketBatchSampler({0: ["a"] * 4, 5: [None] * 4}.__getitem__, lambda label: 2)
    batches.set_epoch(5)
    with pytest.raises(ValueError, match=r"Epoch 5 has no batch.*more clips or other buckets"):
        list(batches)
