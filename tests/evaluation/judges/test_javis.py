"""AVHScore and JavisScore as metrics; their arithmetic is tested in tests/evaluation/judges/test_javis_score.py."""

from __future__ import annotations

import math

import pytest
import torch

from evaluation.judges.javis import JavisJudge
from evaluation.judges.javis_score import sync_scores
from rewards import Prompt
from rewards.imagebind.loading import save_encoder
from tests.rewards.imagebind.small_imagebind import noise_clip, small_encoder

PROMPTS = [Prompt("p", "a ball")] * 2


@pytest.mark.parametrize("protocol", ["correct", "javisbench"])
def test_scores_of_saved_weights_are_those_of_the_encoder(tmp_path, protocol):
    encoder = small_encoder(protocol)
    save_encoder(encoder, tmp_path)
    judge = JavisJudge.load(str(tmp_path), protocol=protocol)
    clips = [noise_clip(3.0, fps=8.0), noise_clip(1.0, sample_rate=0)]
    values = judge.measure(clips, PROMPTS)
    expected = sync_scores(encoder, clips[0])
    assert values["avh_score"][0].item() == pytest.approx(expected.avh_score, abs=1e-6)
    assert values["javis_score"][0].item() == pytest.approx(expected.javis_score, abs=1e-6)
    assert all(scores.dtype == torch.float32 and math.isnan(scores[1]) for scores in values.values())
    assert set(values) == set(JavisJudge.outputs)


def test_protocols_have_versions_of_their_own():
    assert JavisJudge.version_under("correct") == JavisJudge(small_encoder()).version == "1"
    assert JavisJudge(small_encoder("javisbench")).version == "1+javisbench"


def test_a_broken_network_does_not_pass_for_silence():
    encoder = small_encoder()
    with torch.no_grad():
        for parameter in encoder.network.parameters():
            parameter.fill_(math.nan)
    with pytest.raises(ValueError, match="not finite"):
        JavisJudge(encoder).measure([noise_clip(1.0), noise_clip(1.0)], PROMPTS)


def test_the_weights_are_those_of_the_reward():
    assert JavisJudge.published == "imagebind_huge.pth"
    with pytest.raises(ValueError, match="--components imagebind"):
        JavisJudge.load(None)
