"""Advantages of a dataset's candidates: which rewards train which loss, with what weight, and what a failure costs."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from dpo.data.groups import RewardColumn
from dpo.loss.advantages import group_advantages
from dpo.train.advantages import candidate_advantages, choose_rewards, describe
from dpo.train.nft_settings import NFTSettings

REWARDS = {
    "visual_quality": RewardColumn(True, "video"),
    "ib_tv": RewardColumn(True, "video"),
    "audio_quality": RewardColumn(True, "audio"),
    "desync": RewardColumn(False, "audio_video"),
    "loudness": RewardColumn(False, None),
}
IDS = [f"p{number // 4}" for number in range(24)]


def candidates(scores=None, seed=0):
    scores = np.random.default_rng(seed).normal(size=(24, len(REWARDS))) if scores is None else scores
    return SimpleNamespace(rewards=REWARDS, source="data", scores=scores, prompt_ids=IDS)


def settings(**changes):
    return replace(NFTSettings(adv_clip=9.0), **changes)


def columns(dataset, scale="table"):
    """Return the advantage (N,) of each reward on its own, higher is better."""
    signs = np.array([1 if one.higher_is_better else -1 for one in REWARDS.values()])
    return dict(zip(REWARDS, group_advantages(dataset.scores * signs, IDS, scale=scale).T, strict=True))


def test_rewards_reach_the_loss_of_their_modality_with_weights_that_sum_to_one():
    dataset = candidates()
    one = columns(dataset)
    found = candidate_advantages(dataset, settings())
    video = (one["visual_quality"] + one["ib_tv"] + one["desync"]) / 3
    np.testing.assert_allclose(found.trained["video"], video)
    np.testing.assert_allclose(found.trained["audio"], (one["audio_quality"] + one["desync"]) / 2)
    assert found.choice.used == ["visual_quality", "ib_tv", "audio_quality", "desync"]  # loudness is not ranked by


def test_summed_rewards_give_both_losses_the_same_advantage():
    dataset = candidates()
    found = candidate_advantages(dataset, settings(routing="summed"))
    one = columns(dataset)
    expected = sum(one[name] for name in REWARDS if name != "loudness") / 4
    np.testing.assert_allclose(found.trained["video"], expected)
    np.testing.assert_allclose(found.trained["audio"], expected)


def test_given_weights_are_used_as_they_are_and_name_the_only_rewards():
    dataset = candidates()
    one = columns(dataset, "group")
    mix = {"ib_tv": 2.0, "audio_quality": 1.0, "loudness": 0.5}
    found = candidate_advantages(dataset, settings(reward_mix=mix, adv_scale="group"))
    np.testing.assert_allclose(found.trained["video"], 2 * one["ib_tv"] + 0.5 * one["loudness"])
    np.testing.assert_allclose(found.trained["audio"], one["audio_quality"] + 0.5 * one["loudness"])


def test_a_mapping_routes_each_reward_by_hand():
    dataset = candidates()
    one = columns(dataset)
    routing = {"ib_tv": {"video": 1}, "desync": {"video": 0.25, "audio": 1}}
    found = candidate_advantages(dataset, settings(routing=routing))
    np.testing.assert_allclose(found.trained["video"], one["ib_tv"] + 0.25 * one["desync"])
    np.testing.assert_allclose(found.trained["audio"], one["desync"])
    assert found.choice.used == ["ib_tv", "desync"]


def test_a_failed_score_costs_its_own_candidate_alone():
    dataset = candidates()
    dataset.scores[5, 3] = math.nan  # desync, which both losses use
    dataset.scores[9, 4] = math.nan  # loudness, which none uses
    found = candidate_advantages(dataset, settings(adv_scale="group"))
    assert np.flatnonzero(~found.usable).tolist() == [5]
    whole = candidate_advantages(candidates(), settings(adv_scale="group"))
    others = np.delete(np.arange(24), [4, 5, 6, 7])
    for name in ("video", "audio"):
        np.testing.assert_allclose(found.trained[name][others], whole.trained[name][others])
        assert np.isfinite(found.trained[name][[4, 6, 7]]).all()
    assert "left out: 1 candidates with a failed score" in describe(dataset, found, 9.0)


def test_all_candidates_without_a_score_are_an_error():
    dataset = candidates()
    dataset.scores[:, 3] = math.nan
    with pytest.raises(ValueError, match=r"each candidate lacks a score of .*desync"):
        candidate_advantages(dataset, settings())


def test_clip_and_mode_apply_to_what_trains_and_not_to_what_is_measured():
    dataset = candidates()
    found = candidate_advantages(dataset, settings(adv_clip=0.3, adv_mode="positive_only"))
    assert np.abs(found.routed["video"]).max() > 0.3
    np.testing.assert_allclose(found.trained["video"], found.routed["video"].clip(0, 0.3))


def test_shuffled_advantages_say_nothing_about_their_candidates():
    dataset = candidates()
    true, control = (candidate_advantages(dataset, settings(shuffle_advantages=on)) for on in (False, True))
    again = candidate_advantages(dataset, settings(shuffle_advantages=True))
    for name in ("video", "audio"):
        assert np.array_equal(control.trained[name], again.trained[name])
        groups = control.trained[name].reshape(6, 4)
        np.testing.assert_allclose(groups.sum(1), 0, atol=1e-12)
        assert (np.abs(control.trained[name] - true.trained[name]) > 1e-9).all()
        np.testing.assert_allclose(np.sort(groups), np.sort(true.trained[name].reshape(6, 4)), atol=1e-12)


def test_a_loss_of_weight_zero_needs_no_reward():
    dataset = candidates()
    found = candidate_advantages(dataset, settings(video_weight=0.0, reward_mix={"audio_quality": 1.0}))
    assert not found.trained["video"].any()
    np.testing.assert_allclose(found.trained["audio"], columns(dataset)["audio_quality"])
    with pytest.raises(ValueError, match="No reward of audio_quality is routed to video"):
        candidate_advantages(dataset, settings(reward_mix={"audio_quality": 1.0}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward_mix": {"ib_ta": 1.0}}, "reward_mix names ib_ta, but data has the rewards visual_quality"),
        ({"routing": {"ib_ta": {"audio": 1.0}}}, "routing names ib_ta"),
        ({"reward_mix": {}}, "reward_mix is empty"),
    ],
)
def test_unknown_rewards_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        choose_rewards(REWARDS, settings(**changes), "data")


def test_own_rewards_alone_have_to_be_named():
    rewards = {"loudness": REWARDS["loudness"]}
    with pytest.raises(ValueError, match="none of which ranking assigns to a modality: name those that train"):
        choose_rewards(rewards, settings(), "data")
    assert choose_rewards(rewards, settings(reward_mix={"loudness": 1.0}), "data").used == ["loudness"]


def test_a_plan_counts_groups_failures_and_ties():
    dataset = candidates()
    dataset.scores[4:8, 0] = 1.0
    dataset.scores[3, 2] = math.nan
    dataset.prompt_ids = [*IDS[:23], "p6"]
    lines = describe(dataset, candidate_advantages(dataset, settings(adv_clip=0.5)), 0.5)
    text = "\n".join(lines)
    assert "groups: 5 of 4 candidates, 1 of 3 candidates, 1 of 1 candidates" in text
    assert any("visual_quality  video 1" in line and "0 failed scores  2 groups of equal" in line for line in lines)
    assert any("audio_quality" in line and "1 failed scores" in line for line in lines)
    assert "beyond adv_clip 0.5" in text
