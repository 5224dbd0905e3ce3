"""The ImageBind reward: its scores, its batches, and the folders that it loads."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from rewards.base import Prompt
from rewards.imagebind import ImageBindReward
from rewards.imagebind.config import MODALITIES
from rewards.imagebind.encoder import ImageBindEncoder
from rewards.imagebind.loading import save_encoder
from tests.rewards.imagebind.small_imagebind import noise_clip, small_encoder, small_reward, small_tokenizer

CLIPS = [
    noise_clip(2.1, seed=0),
    noise_clip(1.2, fps=8.0, height=48, width=32, sample_rate=22_050, channels=2, seed=1),
    noise_clip(3.0, height=32, width=32, sample_rate=44_100, seed=2),
    noise_clip(2.0, sample_rate=0, seed=3),
]
PROMPTS = [
    Prompt("0", "a small red ball"),
    Prompt("1", "a large blue ball", audio_prompt="struck wood"),
    Prompt("2", "a ball on green " * 30),
    Prompt("3", "a small red ball"),
]


def test_scores_are_cosines_of_the_embeddings():
    reward = small_reward()
    scores = reward.score(CLIPS, PROMPTS)
    encoder = reward.encoder
    video, sound = encoder.videos(CLIPS[1:2]), encoder.sounds(CLIPS[1:2])
    expected = {
        "ib_tv": F.cosine_similarity(encoder.texts(["a large blue ball"]), video),
        "ib_ta": F.cosine_similarity(encoder.texts(["struck wood"]), sound),
        "ib_av": F.cosine_similarity(sound, video),
    }
    assert tuple(scores) == reward.columns
    for column, score in expected.items():
        assert scores[column].dtype == torch.float32
        assert scores[column].shape == (4,)
        torch.testing.assert_close(scores[column][1:2], score, rtol=0, atol=1e-5)


def test_a_score_depends_on_its_own_clip_and_prompt_alone(monkeypatch):
    reward = small_reward()
    together = reward.score(CLIPS, PROMPTS)
    monkeypatch.setattr(ImageBindEncoder, "MICRO_BATCH", 4)
    backwards = reward.score(CLIPS[::-1], PROMPTS[::-1])
    for column, scores in together.items():
        alone = torch.cat([reward.score([clip], [prompt])[column] for clip, prompt in zip(CLIPS, PROMPTS, strict=True)])
        torch.testing.assert_close(alone, scores, rtol=0, atol=1e-5, equal_nan=True)
        torch.testing.assert_close(backwards[column].flip(0), scores, rtol=0, atol=1e-5, equal_nan=True)


def test_without_an_audio_track_only_the_picture_is_scored():
    scores = small_reward().score(CLIPS[3:], PROMPTS[3:])
    assert math.isfinite(scores["ib_tv"])
    assert math.isnan(scores["ib_ta"])
    assert math.isnan(scores["ib_av"])


@pytest.mark.parametrize("modality", ["text", "vision", "audio"])
def test_embeddings_that_are_no_numbers_are_an_error_and_no_missing_score(modality):
    reward = small_reward()
    reward.encoder.network.modality_trunks[modality].blocks[0].norm_1.bias.data[0] = float("nan")
    with pytest.raises(ValueError, match=rf"embeddings of {modality} that are not finite.*dtype='float32'"):
        reward.score(CLIPS[:1], PROMPTS[:1])


def test_texts_are_embedded_as_if_all_their_padding_were_there():
    encoder = small_encoder()
    texts = ["a small red ball", "", "a small red ball", "a ball on green " * 30]
    with torch.no_grad():
        expected = encoder.network("text", encoder.tokenizer(texts, "correct"))
    torch.testing.assert_close(encoder.texts(texts), expected, rtol=0, atol=2e-5)
    torch.testing.assert_close(encoder.texts(texts[:2]), expected[:2], rtol=0, atol=2e-5)  # none is long here


def test_no_clips_have_no_scores():
    assert [scores.shape for scores in small_reward().score([], []).values()] == [(0,)] * 3


def test_one_prompt_is_not_taken_for_all_clips():
    with pytest.raises(ValueError, match=r"zip\(\)"):
        small_reward().score(CLIPS, PROMPTS[:1])


def test_a_sound_of_less_than_a_frame_is_an_error():
    with pytest.raises(ValueError, match=r"320 samples at 16 kHz"):
        small_reward().score([noise_clip(0.02, fps=50.0)], PROMPTS[:1])


def test_long_prompts_are_told_apart_by_default_and_all_alike_under_javisbench():
    long = [Prompt(name, f"a {colour} ball bounces " * 20) for name, colour in (("0", "red"), ("1", "blue"))]
    correct = small_reward().score([CLIPS[0]] * 2, long)["ib_tv"]
    published = small_reward("javisbench").score([CLIPS[0]] * 2, long)["ib_tv"]
    assert abs(correct[0] - correct[1]) > 1e-3
    assert published[0] == pytest.approx(published[1].item(), abs=1e-6)


def test_overlapping_clips_of_a_sound_change_each_other_under_javisbench_only():
    soft = replace(CLIPS[2], audio=0.002 * CLIPS[2].audio + np.float32(0.2))
    correct, published = (small_reward(name).score([soft], PROMPTS[:1]) for name in ("correct", "javisbench"))
    assert correct["ib_tv"] == published["ib_tv"]
    assert abs(correct["ib_av"] - published["ib_av"]) > 1e-4


def test_the_version_tells_the_protocol():
    assert small_reward().version == ImageBindReward.version
    assert small_reward("javisbench").version == f"{ImageBindReward.version}+javisbench"


def test_scores_in_bfloat16_are_close_to_those_in_float32(tmp_path):
    save_encoder(small_encoder(), tmp_path)
    exact, rounded = (
        ImageBindReward.load(str(tmp_path), dtype=dtype).score(CLIPS[:3], PROMPTS[:3])
        for dtype in ("float32", "bfloat16")
    )
    for column, scores in exact.items():
        assert rounded[column].dtype == torch.float32
        torch.testing.assert_close(rounded[column], scores, rtol=0, atol=0.05)


def test_the_network_can_be_trained():
    encoder = small_encoder()
    network = encoder.network.train()
    ids = encoder.tokenizer(["a red ball", "a blue ball"], "correct")
    config = network.config
    sizes = (config.audio.mel_bins, config.audio.mel_frames)
    embeddings = {
        "text": network("text", ids),
        "vision": network("vision", torch.randn(2, 3, 2, config.vision.image_size, config.vision.image_size)),
        "audio": network("audio", torch.randn(2, 1, *sizes)),
    }
    torch.stack(
        [F.mse_loss(embeddings[a], embeddings[b]) for a, b in (("text", "vision"), ("vision", "audio"))]
    ).sum().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


@pytest.fixture
def published_folder(tmp_path):
    """The published layout at small sizes: one `.pth` of all six modalities, with a tokenizer and sizes beside it."""
    encoder = small_encoder(modalities=MODALITIES)
    save_encoder(encoder, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(encoder.network.state_dict(), tmp_path / "imagebind_huge.pth")
    return tmp_path


@pytest.mark.parametrize("name", ["", "imagebind_huge.pth"])
def test_the_published_layout_loads_without_the_modalities_that_are_not_used(published_folder, name):
    reward = ImageBindReward.load(str(published_folder / name))
    assert not any("thermal" in name for name, _ in reward.encoder.network.named_parameters())
    expected = ImageBindReward(small_encoder(modalities=MODALITIES)).score(CLIPS, PROMPTS)
    for column, scores in reward.score(CLIPS, PROMPTS).items():
        torch.testing.assert_close(scores, expected[column], rtol=0, atol=1e-6, equal_nan=True)


def test_weights_of_another_model_are_refused_by_what_they_look_like(tmp_path):
    save_encoder(small_encoder(), tmp_path)
    save_file({"vfeat_extractor.norm.weight": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"does not fit ImageBind.*It looks like Synchformer"):
        ImageBindReward.load(str(tmp_path))


def test_weights_of_other_sizes_are_refused(tmp_path):
    save_encoder(small_encoder(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["audio"]["width"] = 96
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"misshapen \(modality_\w+\.audio.*looks like ImageBind"):
        ImageBindReward.load(str(tmp_path))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"vison": {}}, r"unknown key 'vison': did you mean 'vision'"),
        ({"vision": {"depth": 3}}, r"config\.json: vision has an unknown key 'depth'"),
        ({"text": {"blocks": "two"}}, r"sets blocks to 'two': give a whole number"),
        ({"audio": 3}, r"config\.json: audio holds 3 where an object belongs"),
        ({"vision": {"heads": 7}}, r"config\.json: vision: width 1280 cannot be shared by 7 heads"),
        ({"vision": {"patch_size": 15}}, r"image_size 224 is no multiple of patch_size 15"),
    ],
)
def test_a_wrong_config_is_refused_by_what_is_wrong(tmp_path, config, message):
    save_encoder(small_encoder(), tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        ImageBindReward.load(str(tmp_path))


def test_a_tokenizer_of_another_size_is_refused():
    network = small_encoder().network
    tokenizer = small_tokenizer()
    tokenizer.vocab_size = 100
    with pytest.raises(ValueError, match=r"tokenizer has 100 tokens and the network \d+"):
        ImageBindEncoder(network, tokenizer)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"protocol": "javis"}, r"protocol is 'javis': choose one of correct, javisbench"), ({"dtype": "int8"}, r"int8")],
)
def test_unknown_ways_to_score_are_refused(tmp_path, arguments, message):
    save_encoder(small_encoder(), tmp_path)
    with pytest.raises(ValueError, match=message):
        ImageBindReward.load(str(tmp_path), **arguments)


def test_finding_the_reward_imports_no_network():
    code = "import sys, rewards; rewards.get_reward('rewards.imagebind:ImageBindReward'); print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
