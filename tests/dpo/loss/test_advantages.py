from __future__ import annotations

import json
from typing import get_args

import numpy as np
import pandas as pd
import pytest

from dpo.loss.advantages import (
    adv_mode,
    default_routing,
    group_advantages,
    oriented,
    route,
    shuffled_within_groups,
    summed,
    tied_groups,
)
from dpo.loss.nft_settings import AdvantageMode, AdvantageScale
from rewards.metrics import HIGHER_IS_BETTER, MODALITY_METRICS
from tests.golden_files import golden_path

SETTINGS = json.loads(golden_path("nft/advantages.json").read_text())
WEIGHTS = SETTINGS["weights"]
NAMES = list(WEIGHTS)
DECLARED = {
    name: {"sync": "audio_video"}.get(kind, kind)
    for kind in ("video", "audio", "sync")
    for name in NAMES
    if name in SETTINGS[kind]
}
ROUTING = default_routing({name: DECLARED[name] for name in NAMES})
SCALES = {"global_std": "table", "group_std": "group"}
ATOL = 1e-6


def golden_table(name):
    return pd.read_csv(golden_path(f"nft/{name}.csv"))


def make_scores(num_groups=6, size=8, num_rewards=3, seed=0):
    """Return scores (N, K) with another mean in each group, and the groups, shuffled."""
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(num_groups), size))
    return rng.standard_normal((len(groups), num_rewards)) + 3.0 * groups[:, None], groups


@pytest.mark.parametrize("published", SCALES)
@pytest.mark.parametrize("name", ["advantages", "advantages_constant_audio"])
def test_golden_advantages(name, published):
    table = golden_table(name)
    eps = SETTINGS["std_eps"]
    advantages = group_advantages(table[NAMES], table["prompt"], scale=SCALES[published], eps=eps)
    for column, reward in zip(advantages.T, NAMES, strict=True):
        np.testing.assert_allclose(column, table[f"adv_{published}.{reward}"], rtol=0, atol=ATOL)
    for modality, routed in route(advantages, WEIGHTS, ROUTING).items():
        np.testing.assert_allclose(routed, table[f"{modality}.{published}"], rtol=0, atol=ATOL)


@pytest.mark.parametrize("name", ["advantages", "advantages_constant_audio"])
def test_golden_sums_and_probabilities(name):
    table = golden_table(name)
    advantages = group_advantages(table[NAMES], table["prompt"], scale="table")
    for routed in route(advantages, WEIGHTS, summed(NAMES)).values():
        np.testing.assert_allclose(routed, table["shared_gdpo.global_std"], rtol=0, atol=1e-5)
    raw = group_advantages(table[["avg_reward"]], table["prompt"], scale="table")[:, 0]
    np.testing.assert_allclose(raw, table["avg_adv.global_std"], rtol=0, atol=ATOL)
    clip = SETTINGS["adv_clip_max"]
    for modality, routed in route(advantages, WEIGHTS, ROUTING).items():
        r = 0.5 + np.clip(routed, -clip, clip) / (2 * clip)
        np.testing.assert_allclose(r, table[f"r_{modality}.global_std"], rtol=0, atol=ATOL)


def test_golden_routed_sum_of_zero_is_kept():
    """The release drops a routed column whose sum happens to be 0 (docs/upstream/nft.md, section 8.2)."""
    table = golden_table("advantages_release_fallback")
    advantages = group_advantages(table[NAMES], table["prompt"], scale="table")
    for modality, routed in route(advantages, WEIGHTS, ROUTING).items():
        np.testing.assert_allclose(routed, table[f"{modality}.correct"], rtol=0, atol=1e-5)
    dropped = [np.abs(table[f"{name}.correct"] - table[f"{name}.release"]).max() > 1e-2 for name in ROUTING.modalities]
    assert any(dropped)


@pytest.mark.parametrize("scale", get_args(AdvantageScale))
def test_advantages_are_centred_in_each_group_and_know_nothing_of_its_level(scale):
    scores, groups = make_scores()
    advantages = group_advantages(scores, groups, scale=scale)
    for group in np.unique(groups):
        np.testing.assert_allclose(advantages[groups == group].mean(0), 0, atol=1e-12)
        order = np.argsort(scores[groups == group, 0])
        assert (np.diff(advantages[groups == group, 0][order]) > 0).all()
    order = np.random.default_rng(1).permutation(len(groups))
    np.testing.assert_allclose(group_advantages(scores[order], groups[order], scale=scale), advantages[order])
    named = np.array([f"prompt {group}" for group in groups], dtype=object)
    np.testing.assert_allclose(group_advantages(scores, named, scale=scale), advantages)


def test_an_outlier_shrinks_the_others_unless_the_scale_is_the_median_deviation():
    scores, groups = make_scores()
    wild = scores.copy()
    wild[0, 0] += 1000.0
    others = groups != groups[0]
    for scale, kept in (("table", (0, 0.2)), ("mad", (0.7, 1))):
        after, before = (group_advantages(table, groups, scale=scale)[others, 0] for table in (wild, scores))
        assert kept[0] < (after / before).min() <= (after / before).max() < kept[1]


@pytest.mark.parametrize("scale", get_args(AdvantageScale))
def test_a_failed_score_costs_its_own_candidate_alone(scale):
    scores, groups = make_scores()
    failed = scores.copy()
    failed[3, 1] = np.nan
    advantages = group_advantages(failed, groups, scale=scale)
    assert np.argwhere(np.isnan(advantages)).tolist() == [[3, 1]]
    without = group_advantages(np.delete(scores, 3, axis=0), np.delete(groups, 3), scale=scale)
    np.testing.assert_allclose(np.delete(advantages[:, 1], 3), without[:, 1])
    routing = default_routing({"a": "video", "b": "audio", "c": "video"})
    routed = route(advantages, {"a": 1.0, "b": 1.0, "c": 1.0}, routing)
    assert np.isfinite(routed["video"]).all()
    assert np.flatnonzero(np.isnan(routed["audio"])).tolist() == [3]


def test_a_column_of_failures_stays_nan_without_a_warning(recwarn):
    scores, groups = make_scores(num_rewards=1)
    for scale in get_args(AdvantageScale):
        assert np.isnan(group_advantages(np.full_like(scores, np.nan), groups, scale=scale)).all()
    assert not recwarn.list


@pytest.mark.parametrize("scale", get_args(AdvantageScale))
def test_groups_without_a_preference_have_advantage_exactly_0_and_are_counted(scale):
    scores, groups = make_scores()
    scores[groups == 2, 0] = 0.1  # its mean is not 0.1 in float64 for every size
    scores[groups == 3, 1] = np.where(np.arange(8) == 0, 0.3, np.nan)
    advantages = group_advantages(scores, groups, scale=scale)
    assert (advantages[groups == 2, 0] == 0).all()
    assert np.nanmax(np.abs(advantages[groups == 3, 1])) == 0
    assert tied_groups(scores, groups).tolist() == [1, 1, 0]
    alone = group_advantages([[1.0], [2.0], [5.0]], ["a", "b", "b"], scale=scale)
    assert alone[0, 0] == 0


def test_clip_bounds_each_reward():
    scores, groups = make_scores()
    free, bound = (group_advantages(scores, groups, scale="group", clip=clip) for clip in (None, 1.0))
    np.testing.assert_array_equal(bound, np.clip(free, -1, 1))
    assert np.abs(free).max() > 1


def test_modes_keep_their_part_and_failures():
    advantages = [-2.0, 0.0, 0.5, np.nan]
    kept = {mode: adv_mode(advantages, mode) for mode in get_args(AdvantageMode)}
    np.testing.assert_array_equal(kept["all"], advantages)
    np.testing.assert_array_equal(kept["positive_only"], [0, 0, 0.5, np.nan])
    np.testing.assert_array_equal(kept["negative_only"], [-2, 0, 0, np.nan])
    np.testing.assert_array_equal(kept["one_only"], [0, 0, 1, np.nan])
    np.testing.assert_array_equal(kept["binary"], [-1, 0, 1, np.nan])


def test_lower_is_better_is_turned():
    np.testing.assert_array_equal(oriented([[1.0, 0.2], [2.0, 0.1]], [True, False]), [[1.0, -0.2], [2.0, -0.1]])


def test_the_project_s_rewards_reach_the_losses_that_they_judge():
    declared = {name: modality for modality, names in MODALITY_METRICS.items() for name in names}
    routing = default_routing(declared)
    reached = {
        name: {modality for modality, share in zip(routing.modalities, row, strict=True) if share}
        for name, row in zip(routing.rewards, routing.matrix, strict=True)
    }
    assert reached["visual_quality"] == {"video"}
    assert reached["ib_ta"] == {"audio"}
    assert reached["desync"] == reached["ib_av"] == {"video", "audio"}
    assert not HIGHER_IS_BETTER["desync"]


def test_weights_can_sum_to_1_per_modality():
    scores, groups = make_scores()
    advantages = group_advantages(scores, groups, scale="group")
    routing = default_routing({"see": "video", "hear": "audio", "sync": "audio_video"})
    weights = {"see": 3.0, "hear": 1.0, "sync": 1.0}
    routed = route(advantages, weights, routing, normalise=True)
    np.testing.assert_allclose(routed["video"], 0.75 * advantages[:, 0] + 0.25 * advantages[:, 2])
    np.testing.assert_allclose(routed["audio"], 0.5 * advantages[:, 1] + 0.5 * advantages[:, 2])


def test_shuffled_advantages_are_those_of_other_candidates_and_stay_centred():
    scores, groups = make_scores(num_groups=40)
    advantages = group_advantages(scores, groups, scale="group")
    clip = 1.0
    shuffled = shuffled_within_groups(advantages, groups, seed=5, clip=clip)
    bound = np.clip(advantages, -clip, clip)
    for group in np.unique(groups):
        rows = groups == group
        np.testing.assert_allclose(shuffled[rows].mean(0), 0, atol=1e-12)
        before, after = bound[rows] - bound[rows].mean(0), shuffled[rows]
        distance = np.abs(before[:, None] - after[None]).max(-1)  # rows move as a whole
        assert sorted(distance.argmin(0)) == list(range(len(before)))
        assert (distance.min(0) < 1e-12).all()
        assert (distance.diagonal() > 1e-12).all()
    # Nobody keeps its own, so the correlation is about -1 / (K - 1), never above 0.
    assert -0.25 < np.corrcoef(shuffled[:, 0], advantages[:, 0])[0, 1] < 0


def test_the_shuffle_depends_on_the_seed_and_the_group_alone():
    scores, groups = make_scores()
    advantages = group_advantages(scores, groups, scale="group")
    shuffled = shuffled_within_groups(advantages, groups, seed=5)
    np.testing.assert_array_equal(shuffled_within_groups(advantages, groups, seed=5), shuffled)
    assert not np.array_equal(shuffled_within_groups(advantages, groups, seed=6), shuffled)
    some = groups >= 2
    np.testing.assert_array_equal(shuffled_within_groups(advantages[some], groups[some], seed=5), shuffled[some])


def test_failed_and_single_candidates_take_no_part_in_the_shuffle():
    advantages = [[1.0, 2.0], [-1.0, np.nan], [0.7, 0.1], [3.0, -1.0], [-3.0, 1.0]]
    shuffled = shuffled_within_groups(advantages, ["a", "a", "b", "c", "c"], seed=0)
    assert np.isnan(shuffled[1]).all()
    assert (shuffled[[0, 2]] == 0).all()
    np.testing.assert_array_equal(shuffled[3:], [[-3.0, 1.0], [3.0, -1.0]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: group_advantages([[1.0]], ["a", "b"], scale="group"), "one label per candidate"),
        (lambda: group_advantages([1.0, 2.0], ["a", "a"], scale="group"), "one label per candidate"),
        (lambda: group_advantages([[np.inf]], ["a"], scale="group"), "write NaN"),
        (lambda: group_advantages([[1.0]], ["a"], scale="std"), "group, table, mad"),
        (lambda: group_advantages([[1.0]] * 5 + [[2.0], [3.0]], [1, 1, 1, 1, 1, 2, 2], scale="mad"), "'table'"),
        (lambda: adv_mode([1.0], "best"), "positive_only"),
        (lambda: default_routing({"taste": "taste"}), "give one of video, audio or audio_video"),
        (lambda: default_routing({"ib_tv": "video"}), "routed to audio"),
        (lambda: default_routing({}), "routed to video"),
        (lambda: route([[1.0]], {"a": 1.0}, summed(["a", "b"])), "a column and a weight"),
        (lambda: route([[1.0, 2.0]], {"a": 1.0, "c": 1.0}, summed(["a", "b"])), "a column and a weight"),
        (lambda: route([[1.0]], {"a": 0.0}, summed(["a"])), "have weight 0"),
    ],
)
def test_bad_tables_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
