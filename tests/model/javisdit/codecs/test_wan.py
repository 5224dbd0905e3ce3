"""The Wan2.1 autoencoder gives the published numbers, from either layout; large clips are tiled."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKLWan

from model.javisdit.codecs import wan as wan_codec
from model.javisdit.codecs.wan import MAX_UNTILED_PIXELS, WanVideoCodec, infer_wan_config
from model.javisdit.network.sizes import ClipSize, image_size
from model.javisdit.weights.tensor_names import from_wan_vae_original
from tests.model.javisdit.golden import Golden, published_state
from tests.model.javisdit.small_codecs import WAN_MANIFEST, save_wan_original, small_wan
from tests.model.javisdit.small_model import same_weights

GOLDEN = "media/wan21_vae_reduced.safetensors"
TOLERANCE = 2e-5


def waves(num_frames, height, width):
    """Return smooth moving colours, float (1, 3, T, H, W)."""
    times, rows, columns = (torch.linspace(0, span, n) for span, n in ((2, num_frames), (6, height), (8, width)))
    phase = times[:, None, None] + rows[:, None] + columns
    return 0.8 * torch.stack([phase.sin(), phase.cos(), (2 * phase).sin()])[None]


def test_latents_and_pixels_are_the_published_ones(tmp_path):
    golden = Golden(GOLDEN)
    torch.save(published_state(golden), tmp_path / "vae.pth")
    codec = WanVideoCodec.from_original(tmp_path / "vae.pth")
    assert torch.equal(codec.mean.flatten(), golden["latents_mean"])
    assert torch.equal(codec.std.flatten(), golden["latents_std"])
    for case in (f"case{index}" for index in range(len(golden.metadata["cases"]))):
        latent = golden[f"{case}.latent"]
        assert (codec.encode_pixels(golden[f"{case}.video"]) - latent).abs().max() <= TOLERANCE
        assert (codec.decode_pixels(latent) - golden[f"{case}.reconstruction"]).abs().max() <= TOLERANCE
        other = codec.decode_pixels(golden[f"{case}.latent_in"])
        assert (other - golden[f"{case}.decoded_unclamped"].clamp(-1, 1)).abs().max() <= TOLERANCE


def test_the_full_size_network_has_the_published_tensors():
    shapes = {name: tuple(shape) for name, shape in WAN_MANIFEST["tensors"].items()}
    with torch.device("meta"):
        network = AutoencoderKLWan(**infer_wan_config(shapes, "the manifest"))
    state = network.state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {
        from_wan_vae_original(name): shape for name, shape in shapes.items()
    }
    assert sum(tensor.numel() for tensor in state.values()) == WAN_MANIFEST["num_parameters"] == 126_892_531
    assert list(network.config["latents_mean"]) == WAN_MANIFEST["latents_mean"]
    assert list(network.config["latents_std"]) == WAN_MANIFEST["latents_std"]


def test_weights_survive_both_layouts_bit_for_bit(tmp_path):
    saved = save_wan_original(tmp_path / "vae.pth")
    loaded = WanVideoCodec.from_original(tmp_path / "vae.pth")
    loaded.save_pretrained(tmp_path / "copy")
    again = WanVideoCodec.from_pretrained(tmp_path / "copy")
    for codec in (loaded, again):
        assert same_weights(codec, saved)
        assert not any(parameter.requires_grad for parameter in codec.parameters())
        assert torch.equal(codec.encode_pixels(waves(5, 16, 16)), saved.encode_pixels(waves(5, 16, 16)))


def test_a_copy_can_be_stored_in_half_the_bytes(tmp_path):
    codec = small_wan()
    codec.save_pretrained(tmp_path, torch.bfloat16)
    assert same_weights(WanVideoCodec.from_pretrained(tmp_path, torch.bfloat16), small_wan().to(torch.bfloat16))
    assert same_weights(codec, small_wan())  # itself unchanged


def test_bytes_are_pixels_between_minus_one_and_one():
    codec = small_wan()
    video = torch.randint(0, 256, (2, 5, 16, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    latents = codec.encode(video)
    pixels = (video.float() / 255 - 0.5).permute(0, 4, 1, 2, 3) / 0.5
    assert latents.shape == (2, codec.latent_channels, *codec.latent_size(5, 16, 24)) == (2, 16, 2, 2, 3)
    assert torch.allclose(latents, codec.encode_pixels(pixels), atol=1e-5)
    decoded = codec.decode(latents)
    assert decoded.dtype == torch.uint8
    exact = (codec.decode_pixels(latents).permute(0, 2, 3, 4, 1) + 1) * 127.5
    assert (decoded.float() - exact).abs().max() <= 0.5 + 1e-4


def test_a_clip_is_the_same_alone_and_in_a_batch():
    codec = small_wan()
    both = torch.cat([waves(5, 16, 16), -waves(5, 16, 16)])
    torch.testing.assert_close(codec.encode_pixels(both)[1:], codec.encode_pixels(both[1:]), rtol=0, atol=1e-5)


def test_large_clips_are_tiled_without_seams(monkeypatch):
    codec = local_wan()
    video = waves(5, 80, 96)
    latents = codec.encode_pixels(video)
    pixels = codec.decode_pixels(latents)
    calls = spy_on_tiling(monkeypatch, codec)
    codec.autoencoder.enable_tiling(64, 64, 48, 48)
    assert torch.equal(codec.encode_pixels(video), latents)
    assert calls == []
    monkeypatch.setattr(wan_codec, "MAX_UNTILED_PIXELS", 5 * 80 * 96 - 1)
    assert torch.allclose(codec.encode_pixels(video), latents, atol=1e-5)
    assert torch.allclose(codec.decode_pixels(latents), pixels, atol=1e-5)
    assert calls == ["tiled_encode", "tiled_decode"]


def local_wan():
    """Return a network in which each latent depends only on its own pixels, so that tiles must fit together exactly."""
    codec = small_wan()
    for name, weight in codec.autoencoder.named_parameters():
        if ".attentions." in name and ".proj." in name:
            weight.zero_()
        elif weight.ndim >= 4 and weight.shape[-1] == 3:
            centre = weight[..., 1, 1].clone()
            weight.zero_()[..., 1, 1] = centre
    return codec


def spy_on_tiling(monkeypatch, codec):
    """Return a list to which diffusers' tiling methods add their names when called."""
    calls = []
    for name in ("tiled_encode", "tiled_decode"):
        original = getattr(codec.autoencoder, name)

        def spied(*args, name=name, original=original, **options):
            calls.append(name)
            return original(*args, **options)

        monkeypatch.setattr(codec.autoencoder, name, spied)
    return calls


def test_the_published_sizes_that_are_tiled():
    def num_pixels(num_frames, resolution):
        padded = ClipSize(num_frames, *image_size(resolution, "9:16")).padded
        return padded.num_frames * padded.height * padded.width

    assert num_pixels(81, "240p") <= MAX_UNTILED_PIXELS < num_pixels(49, "480p")
    assert num_pixels(65, "360p") <= MAX_UNTILED_PIXELS < num_pixels(81, "360p")


@pytest.mark.parametrize(
    ("shape", "message"),
    [((8, 16, 16), "8 frames.*use 5 or 9"), ((5, 20, 16), "20x16 pixels.*resize or crop.*16x16")],
)
def test_sizes_that_do_not_fit_say_what_to_do(shape, message):
    with pytest.raises(ValueError, match=message):
        small_wan().encode(torch.zeros(1, *shape, 3, dtype=torch.uint8))


def test_other_autoencoders_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"8 latent channels.*but Wan2\.1's.*give Wan2\.1_VAE\.pth"):
        small_wan(z_dim=8)
    torch.save({"resblocks.0.weight": torch.zeros(1)}, tmp_path / "vocoder.pth")
    with pytest.raises(ValueError, match=r"looks like a HiFi-GAN vocoder.*Give"):
        WanVideoCodec.from_original(tmp_path / "vocoder.pth")


def test_missing_tensors_are_named(tmp_path):
    save_wan_original(tmp_path / "vae.pth")
    state = torch.load(tmp_path / "vae.pth")
    del state["decoder.head.2.bias"]
    torch.save(state, tmp_path / "vae.pth")
    with pytest.raises(ValueError, match=r"1 missing \(decoder\.conv_out\.bias\)"):
        WanVideoCodec.from_original(tmp_path / "vae.pth")
