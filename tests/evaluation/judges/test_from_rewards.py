"""Rewards as metrics: the same names, values and frames as the rewards have."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from evaluation.judges.from_rewards import reward_extractor
from rewards import Prompt, get_reward
from rewards.registry import BUILTIN_REWARDS
from synthetic.captions import caption
from synthetic.render import render_clip
from synthetic.scene import scene_from_seed
from tests.rewards.score_fakes import MODULE, make_clip


@pytest.mark.parametrize("name", BUILTIN_REWARDS)
def test_an_extractor_says_of_itself_what_the_reward_says(name):
    extractor, reward = reward_extractor(name), get_reward(name)
    for attribute in ("name", "version", "needs", "published", "protocols"):
        assert getattr(extractor, attribute) == getattr(reward, attribute)
    assert extractor.outputs == dict.fromkeys(reward.columns)
    assert extractor.version_under("javisbench") == reward.version_under("javisbench")
    weights = Path(__file__)
    assert extractor.companions(weights) == reward.companions(weights)
    assert reward_extractor(name) is extractor


@pytest.mark.parametrize("name", ["verifiable", "audiobox", "imagebind", "synchformer"])
def test_values_are_the_rewards_scores(name):
    scene = scene_from_seed(3)
    clips, prompts = [render_clip(scene)], [Prompt("p", caption(scene))]
    path = "tiny" if get_reward(name).published else None
    reward, extractor = get_reward(name).load(path), reward_extractor(name).load(path)
    values, scores = extractor.extract(clips, prompts), reward.score(clips, prompts)
    assert values.keys() == scores.keys()
    for column, score in scores.items():
        assert values[column].dtype == torch.float32
        torch.testing.assert_close(values[column], score, rtol=0, atol=1e-6, equal_nan=True)
    assert extractor.frames(33, 16.0) == reward.frames(33, 16.0)


def test_a_protocol_reaches_the_reward():
    extractor = reward_extractor("synchformer").load("tiny", protocol="javisbench")
    assert extractor.version == "1+javisbench"
    assert extractor.reward.protocol == "javisbench"


def test_a_reward_of_ones_own_is_named_by_its_path():
    extractor = reward_extractor(f"{MODULE}:Shade").load()
    values = extractor.extract([make_clip(40), make_clip(90)], [Prompt("p", "grey")] * 2)
    assert values["shade"].tolist() == [40.0, 90.0]


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'imagebind'"):
        reward_extractor("imagebint")
