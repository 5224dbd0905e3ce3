"""The AudioLDM2 codec gives the published numbers and the documented lengths."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import AutoencoderKL
from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

from media.mel import log_mel, normalize_waveform
from model.javisdit.codecs.audioldm2 import AudioLDM2Codec
from tests.model.javisdit.golden import Golden, golden_path
from tests.model.javisdit.small_codecs import small_audioldm2, vocoder_config
from tests.model.javisdit.small_model import same_weights

GOLDEN = "media/audio_codec_reduced.safetensors"


@pytest.fixture(scope="module")
def codec():
    return small_audioldm2()


@pytest.fixture(scope="module")
def golden():
    return Golden(GOLDEN)


@pytest.fixture(scope="module")
def published(golden, tmp_path_factory):
    """Return the golden networks, saved and loaded by the codec."""
    vae = AutoencoderKL(**golden.metadata["vae_config"])
    vocoder = SpeechT5HifiGan(SpeechT5HifiGanConfig(**golden.metadata["vocoder_config"]))
    for prefix, network in (("vae.", vae), ("vocoder.", vocoder)):
        names = [name for name in golden.names if name.startswith(prefix)]
        network.load_state_dict({name.removeprefix(prefix): golden[name] for name in names})
    folder = tmp_path_factory.mktemp("audioldm2")
    AudioLDM2Codec(vae, vocoder).save_pretrained(folder)
    return AudioLDM2Codec.from_pretrained(folder)


def test_latents_are_the_published_ones(golden, published):
    drawn = published.encode_mel(golden["mel"], golden["sample_noise"])
    assert (drawn - golden["latent"]).abs().max() <= 2e-5
    mean = golden["posterior_mean"] * golden.metadata["vae_config"]["scaling_factor"]
    assert (published.encode_mel(golden["mel"]) - mean).abs().max() <= 2e-5


def test_mel_and_waveform_are_the_published_ones(golden, published):
    latents, num_samples = golden["latent_in"], golden.metadata["cut_length"]
    assert (published.decode_mel(latents) - golden["decoded_mel"]).abs().max() <= 5e-5
    waveform = published.decode(latents, num_samples)
    assert waveform.shape == golden["waveform"].shape == (1, num_samples)
    assert (waveform - golden["waveform"]).abs().max() <= 1e-4
    uncut = golden["waveform_uncut"]
    assert uncut.shape[1] == 160 * golden["decoded_mel"].shape[2] + 32
    assert (published.decode(latents, uncut.shape[1]) - uncut).abs().max() <= 1e-4


def test_latent_sizes_are_the_published_ones_by_either_rule(codec):
    for row in json.loads(golden_path("media/audio_lengths.json").read_text(encoding="utf-8"))["rows"]:
        sampling = codec.latent_size(row["waveform_samples"], "sampling")
        training = codec.latent_size(row["waveform_samples"])
        assert [codec.latent_channels, *sampling] == row["latent_shape"][1:]
        assert training == (row["training_latent_T"], 16)
        for (steps, bands), name in ((sampling, "num_tokens"), (training, "training_num_tokens")):
            assert (steps // 2) * (bands // 2) == row[name]


def test_a_waveform_goes_through_the_training_front_end(codec):
    generator = torch.Generator().manual_seed(0)
    waveform = torch.randn(2, 20_000, generator=generator)
    mel = log_mel(normalize_waveform(waveform), 128)[:, None]  # 125 frames, rounded up to a multiple of 8
    noise = torch.randn(2, 8, 32, 16, generator=generator)
    assert torch.equal(codec.encode(waveform), codec.encode_mel(mel))
    assert torch.equal(codec.encode(waveform, noise), codec.encode_mel(mel, noise))
    assert codec.encode(waveform).shape == (2, codec.latent_channels, *codec.latent_size(20_000)) == (2, 8, 32, 16)


def test_waveforms_are_cut_or_filled_up_to_the_wanted_length(codec):
    latents = torch.randn(1, 8, 4, 16, generator=torch.Generator().manual_seed(0))
    available = 160 * 16 + 32
    longer, exact = codec.decode(latents, available + 5), codec.decode(latents, available)
    assert torch.equal(longer[:, :available], exact)
    assert longer[:, available:].tolist() == [[0.0] * 5]
    assert torch.equal(codec.decode(latents, 100), exact[:, :100])


def test_saved_codecs_come_back_bit_for_bit(codec, tmp_path):
    codec.save_pretrained(tmp_path)
    loaded = AudioLDM2Codec.from_pretrained(tmp_path)
    assert same_weights(loaded, codec)
    assert loaded.autoencoder.config["scaling_factor"] == 0.41
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize("shape", [(16_000,), (1, 2, 16_000), (1, 512)])
def test_waveforms_of_another_shape_are_refused(codec, shape):
    with pytest.raises(ValueError, match=r"\(B, samples\).*mix the channels to mono"):
        codec.encode(torch.zeros(shape))


def test_a_vocoder_for_another_front_end_is_refused(codec):
    other = SpeechT5HifiGan(vocoder_config(upsample_rates=[4, 4, 4, 4, 1]))
    with pytest.raises(ValueError, match=r"256 samples per frame.*use AudioLDM2's vocoder"):
        AudioLDM2Codec(codec.autoencoder, other)
