"""What the rewards ask of a device: that it is there, and float32 where cuDNN would take less."""

from __future__ import annotations

import pytest
from torch.backends import cudnn
from torch.nn.modules.conv import _ConvNd

from core.devices import check_device, exact_convolutions
from rewards import Prompt, RewardSuite
from rewards.audiobox import AudioBoxReward
from rewards.videoalign import VideoAlignReward
from tests.rewards.audiobox.audiobox_samples import tiny_network
from tests.rewards.synchformer import small_synchformer
from tests.rewards.synchformer.small_synchformer import noise_clip
from tests.rewards.videoalign.videoalign_folder import write_folder

CLIP = noise_clip(1.5)
SETTINGS = ("enabled", "benchmark", "deterministic", "allow_tf32")


def small_reward(name, folder):
    if name == "audiobox":
        return AudioBoxReward(tiny_network())
    if name == "synchformer":
        return small_synchformer.small_reward()
    return VideoAlignReward.load(str(write_folder(folder / "VideoReward")))


@pytest.mark.parametrize("name", ["audiobox", "synchformer", "videoalign"])
def test_convolutions_run_without_tf32_and_everything_is_as_before_after_it(tmp_path, name):
    reward = small_reward(name, tmp_path)
    before = {setting: getattr(cudnn, setting) for setting in SETTINGS}
    seen = []
    for module in reward.network.modules():
        if isinstance(module, _ConvNd):
            module.register_forward_pre_hook(lambda *_: seen.append(cudnn.conv.fp32_precision))
    reward.score([CLIP], [Prompt("p", "a dog")])
    assert seen
    assert set(seen) == {"ieee"}
    assert {setting: getattr(cudnn, setting) for setting in SETTINGS} == before


@pytest.mark.parametrize("chosen", ["tf32", "ieee"])
def test_a_choice_of_the_callers_is_given_back_even_after_an_error(chosen):
    before = cudnn.conv.fp32_precision
    cudnn.conv.fp32_precision = chosen
    try:
        with pytest.raises(RuntimeError, match="inside"), exact_convolutions():
            raise RuntimeError("inside")
        assert cudnn.conv.fp32_precision == chosen
    finally:
        cudnn.conv.fp32_precision = before


def test_the_cpu_is_there():
    check_device("cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:77", "meta", "cpu:x", ""])
def test_a_device_that_is_not_there_is_refused_before_anything_is_loaded(name):
    with pytest.raises(ValueError, match=f"device is {name!r}, which cannot be used here .*Try 'cpu'") as caught:
        RewardSuite.load(["learned"], weights="nowhere", device=name)
    assert "\n" not in str(caught.value)
