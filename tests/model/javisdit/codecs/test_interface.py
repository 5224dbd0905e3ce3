"""The codec class is detected from the files at a path."""

from __future__ import annotations

import pytest
import torch

from model import preset_path
from model.data.windows import resize_crop
from model.javisdit.codecs.audioldm2 import AudioLDM2Codec
from model.javisdit.codecs.interface import load_audio_codec, load_video_codec
from model.javisdit.codecs.tiny import FrameGroupVideoCodec, MelAudioCodec
from model.javisdit.codecs.wan import WanVideoCodec
from tests.model.javisdit.small_codecs import save_audioldm2, save_wan_original, small_wan


def test_the_tiny_codecs():
    assert isinstance(load_video_codec(preset_path("tiny") / "video_codec"), FrameGroupVideoCodec)
    assert isinstance(load_audio_codec(preset_path("tiny") / "audio_codec"), MelAudioCodec)


@pytest.mark.parametrize("file", ["Wan2.1_VAE.pth", "vae.safetensors"])
def test_wan_in_original_naming(tmp_path, file):
    save_wan_original(tmp_path / file)
    assert isinstance(load_video_codec(tmp_path / file), WanVideoCodec)


@pytest.mark.parametrize("safe", [True, False])
def test_wan_in_a_diffusers_folder(tmp_path, safe):
    small_wan().autoencoder.save_pretrained(tmp_path, safe_serialization=safe)
    assert isinstance(load_video_codec(tmp_path), WanVideoCodec)


def test_audioldm2_folders(tmp_path):
    save_audioldm2(tmp_path)
    assert isinstance(load_audio_codec(tmp_path), AudioLDM2Codec)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_in_the_wanted_precision_and_latents_in_float32(tmp_path, dtype):
    save_audioldm2(tmp_path / "audio")
    small_wan().save_pretrained(tmp_path / "video")
    clip, sound = torch.zeros(1, 5, 16, 16, 3, dtype=torch.uint8), torch.ones(1, 16_000).cumsum(1) / 16_000
    for folder in (preset_path("tiny") / "video_codec", tmp_path / "video"):
        video = load_video_codec(folder, dtype)
        assert {parameter.dtype for parameter in video.parameters()} == {dtype}
        assert video.encode(clip).dtype == torch.float32
        assert video.decode(video.encode(clip)).shape == clip.shape
    for folder in (preset_path("tiny") / "audio_codec", tmp_path / "audio"):
        audio = load_audio_codec(folder, dtype)
        assert {parameter.dtype for parameter in audio.parameters()} == {dtype}
        assert audio.encode(sound).dtype == audio.decode(audio.encode(sound), 16_000).dtype == torch.float32


def test_pixels_may_be_bytes_or_floats(tmp_path):
    small_wan().save_pretrained(tmp_path)
    frames = torch.randint(0, 256, (1, 5, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for folder in (preset_path("tiny") / "video_codec", tmp_path):
        codec = load_video_codec(folder)
        with torch.no_grad():
            assert torch.allclose(codec.encode(resize_crop(frames[0], 16, 16)[None]), codec.encode(frames), atol=1e-4)
        for wrong, message in (
            (frames.float(), r"floats from 0 to 255, .*pixels / 127\.5 - 1"),
            (frames.int(), "int32"),
        ):
            with pytest.raises(ValueError, match=message):
                codec.encode(wrong)


def test_paths_without_a_codec_say_what_is_there_and_what_is_accepted(tmp_path):
    with pytest.raises(ValueError, match=r"none does not exist.*codec\.json.*AutoencoderKLWan.*Wan2\.1_VAE\.pth"):
        load_video_codec(tmp_path / "none")
    with pytest.raises(ValueError, match="nothing in it"):
        load_video_codec(tmp_path)
    save_audioldm2(tmp_path)
    with pytest.raises(ValueError, match="folder with vae, vocoder, so it is no video codec"):
        load_video_codec(tmp_path)
    with pytest.raises(ValueError, match="of class AutoencoderKL, so it is no video codec"):
        load_video_codec(tmp_path / "vae")
    with pytest.raises(ValueError, match=r"of class AutoencoderKL, so it is no audio codec.*vae/ and vocoder/"):
        load_audio_codec(tmp_path / "vae")
    (tmp_path / "vocoder" / "config.json").unlink()
    with pytest.raises(ValueError, match=r"vocoder has no config\.json"):
        load_audio_codec(tmp_path)


def test_files_of_other_networks_are_named(tmp_path):
    small_wan().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"looks like a Wan2\.1 video autoencoder in Diffusers naming.*folder with"):
        load_video_codec(tmp_path / "diffusion_pytorch_model.safetensors")
