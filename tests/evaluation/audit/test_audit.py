"""Audit of made-up scores: what is planted is named, what is not is not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from evaluation.audit import RewardColumn, audit

NUM_PROMPTS, SIZE = 80, 8
TEXT_VIDEO = RewardColumn("ib_tv", True)
TEXT_AUDIO = RewardColumn("ib_ta", True)


def table(**columns) -> pd.DataFrame:
    """Return scores of all candidates; independent noise unless columns are given, as (N,) arrays."""
    rng = np.random.default_rng(7)
    groups = np.repeat(np.arange(NUM_PROMPTS), SIZE)
    frame = pd.DataFrame(
        {
            "candidate_id": [f"p{group:03d}/{row % SIZE}" for row, group in enumerate(groups)],
            "prompt_id": [f"p{group:03d}" for group in groups],
            **dict(zip(("ib_tv", "ib_ta"), rng.normal(size=(2, len(groups))), strict=True)),
        }
    )
    return frame.assign(**columns)


def noise(seed: int, size: int = NUM_PROMPTS * SIZE) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=size)


def audited(frame, *more, **settings):
    return audit(frame, [TEXT_VIDEO, TEXT_AUDIO, *more], **{"num_bootstrap": 500, **settings})


def figures(result, name):
    return next(one for one in result.rewards if one.name == name)


def test_nothing_is_said_about_independent_rewards_of_full_groups():
    result = audited(table())
    assert result.warnings == ()
    assert result.group_sizes == (SIZE,) * NUM_PROMPTS
    assert (figures(result, "ib_tv").failed, figures(result, "ib_tv").ties) == (0.0, 0.0)


def test_a_planted_pull_is_named_and_a_planted_independence_is_not():
    frame = table()
    frame["audio_quality"] = noise(1) - 0.6 * frame["ib_ta"]
    result = audited(frame, RewardColumn("audio_quality", True))
    [warning] = result.warnings
    assert warning.startswith("ib_ta and audio_quality pull apart: r -0.5")
    found = {(one.first, one.second): one.correlation for one in result.correlations}
    planted, zero = found["ib_ta", "audio_quality"], found["ib_tv", "audio_quality"]
    assert planted.high < -0.4
    assert zero.low < 0 < zero.high
    assert planted.spearman == pytest.approx(planted.pearson, abs=0.1)


def test_rewards_are_compared_with_higher_as_better():
    frame = table()
    frame["desync"] = noise(1) + 0.6 * frame["ib_ta"]  # lower is better: it pulls against ib_ta
    [warning] = audited(frame, RewardColumn("desync", False)).warnings
    assert warning.startswith("ib_ta and desync pull apart: r -0.5")
    assert audited(frame, RewardColumn("desync", True)).warnings == ()


def test_what_a_reward_pays_for_beside_is_named_with_its_direction():
    frame = table()
    counters = pd.DataFrame(
        {
            "onsets_heard": noise(2) + 0.5 * frame["ib_ta"],
            "motion": noise(3) - 0.5 * frame["ib_tv"],
            "loudness": noise(4),
        }
    ).set_index(pd.Index(frame["candidate_id"]))
    shuffled = counters.sample(frac=1, random_state=0)
    more, less = sorted(audited(frame, counters=shuffled).warnings)
    assert more.startswith("ib_ta pays for more onsets heard: r +0.4")
    assert less.startswith("ib_tv pays for less movement: r -0.4")
    weak = counters.assign(onsets_heard=noise(2) + 0.2 * frame["ib_ta"].to_numpy(), motion=noise(3))
    assert audited(frame, counters=weak).warnings == ()


def test_failed_scores_are_counted_and_are_no_zeros():
    scores = 100 + noise(1)
    scores[::10] = np.nan
    result = audited(table(visual_quality=scores), RewardColumn("visual_quality", True))
    found = figures(result, "visual_quality")
    assert found.failed == pytest.approx(0.1)
    assert found.within_std == pytest.approx(1.0, abs=0.1)  # zeros would make it 30
    [warning] = result.warnings
    assert warning.startswith("visual_quality: 10.0% of the scores failed")
    all_failed = audited(table(visual_quality=np.nan), RewardColumn("visual_quality", True))
    assert all_failed.warnings == ("visual_quality: all scores failed. Score again, or leave the reward out.",)
    assert all_failed.headroom == audited(table()).headroom


def test_ties_and_groups_without_variance():
    rng = np.random.default_rng(0)
    coarse = rng.integers(3, size=NUM_PROMPTS * SIZE).astype(float)
    coarse[: NUM_PROMPTS * SIZE // 2] = 1.0
    found = figures(audited(table(desync=coarse), RewardColumn("desync", False)), "desync")
    assert found.flat_groups == pytest.approx(0.5)
    assert found.ties == pytest.approx(0.5 + 0.5 / 3, abs=0.03)
    [warning] = audited(table(desync=coarse), RewardColumn("desync", False)).warnings
    assert warning == "desync: 50% of the prompts have no variance, and teach nothing about it."
    coarse[: NUM_PROMPTS * SIZE // 2] = rng.integers(3, size=NUM_PROMPTS * SIZE // 2)
    [warning] = audited(table(desync=coarse), RewardColumn("desync", False)).warnings
    assert warning.startswith("desync: 3")
    assert "of the pairs within prompts are ties" in warning


def test_variance_within_and_between_prompts():
    between = np.repeat(np.random.default_rng(0).normal(0, 3, NUM_PROMPTS), SIZE)
    found = figures(audited(table(ib_tv=between + noise(1))), "ib_tv")
    assert found.within_std == pytest.approx(1.0, abs=0.1)
    assert found.between_std == pytest.approx(3.0, abs=0.8)


def test_best_of_k_of_normal_scores_is_the_expected_maximum():
    result = audited(table(ib_tv=noise(1), ib_ta=noise(2)))
    assert figures(result, "ib_tv").headroom == pytest.approx(1.42, abs=0.12)  # of 8 standard normal draws
    assert result.headroom == pytest.approx(1.42 / np.sqrt(2), abs=0.12)  # the mean of two independent modalities


def test_small_groups_are_counted():
    frame = table()
    frame = frame[~frame["candidate_id"].isin(["p000/0", "p000/1", "p001/0"])]
    result = audited(frame)
    assert result.group_sizes[:3] == (6, 7, 8)
    [warning] = result.warnings
    assert warning.startswith("2 of 80 prompts have fewer than 8 candidates (the smallest 6)")


@pytest.mark.parametrize(
    ("columns", "blind"),
    [
        ([RewardColumn("visual_quality", True), RewardColumn("audio_quality", True)], {"video", "audio"}),
        ([RewardColumn("visual_quality", True), TEXT_VIDEO, TEXT_AUDIO], set()),
        ([RewardColumn("ib_av", True)], set()),  # of both; no reward is asked to be about the prompt there
        ([RewardColumn("mine", True, "mine", frozenset({"video"}))], {"video"}),
        ([RewardColumn("mine", True, "mine", frozenset({"video", "text"}))], set()),
        ([RewardColumn("mine", True, "mine", None)], set()),
    ],
)
def test_modalities_whose_rewards_never_see_the_prompt_are_named(columns, blind):
    frame = table(**{column.name: noise(place) for place, column in enumerate(columns)})
    found = audit(frame, columns, num_bootstrap=200).warnings
    assert {warning.split(":")[0] for warning in found if "never see the prompt" in warning} == blind


def test_ground_truth_that_always_wins_is_named_and_takes_no_other_part():
    truth = pd.DataFrame({"prompt_id": [f"p{group:03d}" for group in range(NUM_PROMPTS)]})
    truth = truth.assign(candidate_id=truth["prompt_id"] + "/gt", is_ground_truth=True, ib_tv=9.0, ib_ta=9.0)
    generated = table().assign(is_ground_truth=False)
    result = audited(pd.concat([generated, truth], ignore_index=True))
    assert (result.truth_wins, figures(result, "ib_tv").truth_wins, result.num_ground_truth) == (1.0, 1.0, NUM_PROMPTS)
    [warning] = result.warnings
    assert warning.startswith("ground truth is better than every candidate in 100% of the prompts")
    assert "Set ground_truth to never" in warning
    assert figures(result, "ib_tv").within_std == figures(audited(generated), "ib_tv").within_std
    ordinary = audited(pd.concat([generated, truth.assign(ib_tv=0.0, ib_ta=0.0)], ignore_index=True))
    assert ordinary.truth_wins < 0.3
    assert ordinary.warnings == ()


def test_scores_that_cannot_be_audited_are_refused():
    with pytest.raises(ValueError, match="no reward columns"):
        audit(table(), [])
    with pytest.raises(ValueError, match="no column visual_quality"):
        audit(table(), [RewardColumn("visual_quality", True)])
    with pytest.raises(ValueError, match="no generated candidate"):
        audited(table().assign(is_ground_truth=True))
