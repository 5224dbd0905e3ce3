"""Parity of the ImageBind network with the published one, at reduced size, by name and, slowly, at full size."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from rewards.imagebind.config import MODALITIES, ImageBindConfig
from rewards.imagebind.network import ImageBind, LogitScale
from tests.golden_files import Golden, golden_path
from tests.rewards.procedural import fill

TOLERANCE = 2e-5
CASES = {  # name in the file -> modality
    "text": "text",
    "vision.clips": "vision",
    "vision.images": "vision",
    "audio": "audio",
    "audio.quiet": "audio",
    "depth": "depth",
    "thermal": "thermal",
    "imu": "imu",
}


@pytest.fixture(scope="module")
def golden():
    return Golden("synchformer_imagebind/ib_reduced.safetensors")


@pytest.fixture(scope="module")
def network(golden):
    return fill(ImageBind(reduced_config(golden.metadata["config"])), golden.metadata["SEED"]).eval()


def reduced_config(arguments):
    config = ImageBindConfig(embed_dim=arguments["out_embed_dim"])
    trunks = {
        name: replace(
            getattr(config, name),
            width=arguments[f"{name}_embed_dim"],
            blocks=arguments[f"{name}_num_blocks"],
            heads=arguments[f"{name}_num_heads"],
        )
        for name in MODALITIES
    }
    return replace(config, **trunks)


def inputs_of(golden, case):
    """The network's inputs, and how many of them each averaged embedding has (1 where nothing is averaged)."""
    stored = golden[f"in.{case}"]
    if stored.dtype == torch.int8:
        stored = stored / 64
    inputs = stored.float() if stored.is_floating_point() else stored
    return (inputs.flatten(0, 1), inputs.shape[1]) if inputs.ndim >= 5 else (inputs, 1)


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_embeddings_are_the_published_ones(golden, network, case):
    seen = {}
    modality = CASES[case]
    network.modality_heads[modality].register_forward_hook(lambda module, args, out: seen.update(head=out))
    inputs, views = inputs_of(golden, case)
    post = network(modality, inputs)
    torch.testing.assert_close(seen["head"], golden[f"out.{case}.head"], rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(post, golden[f"out.{case}.post"], rtol=0, atol=TOLERANCE)
    embed = post.unflatten(0, (-1, views)).mean(1)
    torch.testing.assert_close(embed, golden[f"out.{case}.embed"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("case", ["text", "vision.clips", "vision.images", "audio", "audio.quiet"])
@torch.no_grad()
def test_blocks_give_the_published_tokens(golden, network, case):
    modality = CASES[case]
    trunk, seen = network.modality_trunks[modality], {}
    trunk.blocks[0].register_forward_pre_hook(lambda module, args: seen.update(trunk_in=args[0]))
    for index, block in enumerate(trunk.blocks):
        block.register_forward_hook(lambda module, args, out, index=index: seen.update({f"block{index}": out}))
    network(modality, inputs_of(golden, case)[0])
    for stage, tokens in seen.items():
        expected = golden[f"out.{case}.trace.{stage}"]
        torch.testing.assert_close(tokens[0, golden[f"tok_idx.{modality}"]], expected, rtol=0, atol=TOLERANCE)


def test_a_text_that_lost_its_end_is_embedded_by_its_first_token_alone(golden, network):
    whole, without_end = golden["in.text"][1:3]
    other = without_end.clone()
    other[1:] = torch.arange(1, 77)
    with torch.no_grad():
        first, second, sound = network("text", torch.stack([without_end, other, whole]))
    torch.testing.assert_close(first, second)
    assert (first - sound).abs().max() > 0.1


def test_scales_are_applied_and_end_at_100(golden, network):
    x = golden["post.x"]
    torch.testing.assert_close(network.modality_postprocessors["vision"](x), golden["post.vision"], rtol=1e-5, atol=0)
    fresh = ImageBind(network.config, ["audio"]).modality_postprocessors["audio"]
    torch.testing.assert_close(fresh(x), golden["post.audio"], rtol=1e-5, atol=0)
    unit = network.modality_postprocessors["vision"](x)
    scale = LogitScale(1.0, learned=True)
    for value, expected in zip(golden["post.text_log_logit_scale"], golden["post.text"], strict=True):
        scale.log_logit_scale.data.fill_(value.item())
        torch.testing.assert_close(scale(unit).detach(), expected, rtol=1e-5, atol=0)


def test_full_size_has_the_names_and_shapes_of_the_published_checkpoint():
    manifest = golden_path("upstream/manifest_imagebind_huge.json")
    with torch.device("meta"):
        state = ImageBind(ImageBindConfig()).state_dict()
    assert {name: list(tensor.shape) for name, tensor in state.items()} == json.loads(manifest.read_text())


def test_full_size_has_the_published_number_of_parameters():
    with torch.device("meta"):
        network = ImageBind(ImageBindConfig())
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_200_781_057


@pytest.mark.slow
@pytest.mark.parametrize("modality", MODALITIES)
@torch.no_grad()
def test_full_size_embeds_as_published(modality):
    """Needs up to 4 GB: one modality after the other, with procedural weights."""
    huge, reduced = (Golden(f"synchformer_imagebind/ib_{name}.safetensors") for name in ("huge", "reduced"))
    with torch.device("meta"):
        network = ImageBind(ImageBindConfig(), [modality])
    keep = ()
    if modality == "text":
        stem = network.modality_preprocessors["text"]
        stem.mask = torch.full(stem.mask.shape, float("-inf")).triu(1)
        keep = ("modality_preprocessors.text.mask",)
    fill(network, huge.metadata["SEED"], keep).eval()
    inputs = inputs_of(reduced, "vision.clips" if modality == "vision" else modality)[0]
    inputs = inputs[[0, 2]] if modality == "text" else inputs[:1]
    torch.testing.assert_close(network(modality, inputs), huge[f"out.{modality}.embed"], rtol=0, atol=1e-4)
