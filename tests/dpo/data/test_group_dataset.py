"""Candidates as tensors: shapes, scores, draws, and datasets that are refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from datasets import Dataset

from dpo.data.group_dataset import GroupCollator, GroupDataset
from model.data.batches import RowKey
from tests.dpo.dpo_helpers import GROUP_REWARDS, make_group_rows, make_groups, make_rows, tiny_model
from tests.small_latents import AUDIO_SHAPE, TEXT_LEN, VIDEO_SHAPE

DRAWN = ("video_noise", "audio_noise", "timestep")


def collate(dataset, keys, shared=False, seed=0, **settings):
    advantages = {name: np.arange(len(dataset)) / 10.0 for name in ("video", "audio")}
    collator = GroupCollator(seed, dataset.negative_text, advantages, shared, **settings)
    return collator([dataset[key] for key in keys])


def test_rows_come_back_in_their_shapes_with_their_scores():
    rows = make_group_rows()
    rows[4]["desync"] = math.nan
    dataset = make_groups(rows)
    candidate = dataset[5]
    assert (candidate.candidate_id, candidate.prompt_id, candidate.row) == ("p1/1", "p1", 5)
    expected = torch.tensor(rows[5]["audio_latents"]).half().float().view(AUDIO_SHAPE)
    assert torch.equal(candidate.latents["audio"], expected)
    assert candidate.latents["video"].shape == VIDEO_SHAPE
    assert np.array_equal(dataset.scores, [[row[name] for name in GROUP_REWARDS] for row in rows], equal_nan=True)
    assert dataset.num_tokens(dataset.shapes[0], tiny_model().config) == 3 * 4 + 4 * 2


def test_candidates_of_a_prompt_share_draws_and_those_of_others_do_not():
    dataset = make_groups()
    batch = collate(dataset, range(8), shared=True, text_dropout=0.5)
    for name in DRAWN:
        for group in (batch[name][:4], batch[name][4:]):
            assert all(torch.equal(one, group[0]) for one in group)
        assert not torch.equal(batch[name][0], batch[name][4])
    alone = collate(dataset, [6], shared=True)
    assert all(torch.equal(alone[name][0], batch[name][6]) for name in DRAWN)
    dropped = collate(make_groups(make_group_rows(12)), range(48), shared=True, text_dropout=0.5)["text_dropped"]
    assert {tuple(group.tolist()) for group in dropped.split(4)} == {(True,) * 4, (False,) * 4}


def test_without_sharing_every_candidate_has_draws_of_its_own():
    batch = collate(make_groups(), range(8))
    assert len(set(batch["timestep"].tolist())) == 8
    assert not torch.equal(batch["video_noise"][0], batch["video_noise"][1])


@pytest.mark.parametrize("shared", [True, False])
def test_draws_depend_on_seed_and_epoch_but_not_on_the_batch(shared):
    dataset = make_groups()
    together, alone = collate(dataset, [0, 5, 2], shared), collate(dataset, [5], shared)
    assert all(torch.equal(together[name][1], alone[name][0]) for name in DRAWN)
    for other in (collate(dataset, [RowKey(5, epoch=1)], shared), collate(dataset, [5], shared, seed=1)):
        assert not torch.equal(other["timestep"], alone["timestep"])


def test_a_batch_holds_the_advantages_of_its_rows():
    batch = collate(make_groups(), [7, 2])
    for name in ("video", "audio"):
        torch.testing.assert_close(batch["advantage"][name], torch.tensor([0.7, 0.2]))
        assert batch[name].shape == (2, *(VIDEO_SHAPE if name == "video" else AUDIO_SHAPE))
    assert batch["candidate_id"] == ["p1/3", "p0/2"]
    assert batch["text"].shape[:2] == batch["text_mask"].shape == (2, TEXT_LEN)


def test_datasets_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match=r"no training dataset of candidates \(is it one of pairs"):
        GroupDataset(Dataset.from_list(make_rows()), None, GROUP_REWARDS)
    with pytest.raises(ValueError, match="lacks the reward columns loudness"):
        make_groups(rewards={"loudness": GROUP_REWARDS["desync"]})
    mixed = make_group_rows(1) + make_group_rows(1, video_shape=(4, 2, 4, 4), first_id=1)
    mixed[3]["prompt_id"] = "p1"
    with pytest.raises(ValueError, match="candidates of prompt 'p1' have different shapes"):
        make_groups(mixed)
    twice = make_group_rows(1)
    twice[1]["candidate_id"] = twice[0]["candidate_id"]
    with pytest.raises(ValueError, match="has candidate 'p0/0' 2 times"):
        make_groups(twice)


def test_damaged_values_are_named():
    rows = make_group_rows()
    rows[2]["audio_latents"].pop()
    with pytest.raises(ValueError, match=r"candidate 'p0/2' has 63 values in audio_latents"):
        make_groups(rows)
    rows = make_group_rows()
    rows[2]["video_latents"][0] = math.inf
    with pytest.raises(ValueError, match=r"candidate 'p0/2' .row 2. has non-finite values in its video data"):
        make_groups(rows).check_finite()
    with pytest.raises(ValueError, match="candidate 'p0/0' has 5 video channels, the model expects 4"):
        make_groups(make_group_rows(video_shape=(5, 3, 4, 4))).check_network(tiny_model())
