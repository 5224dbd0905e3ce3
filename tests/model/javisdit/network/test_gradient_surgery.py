from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from model.javisdit.network.attention import CrossAttention, SelfAttention
from model.javisdit.network.gradient_surgery import block_scales, scale_gradient
from tests.golden_files import Golden, golden_path
from tests.model.javisdit.small_model import inputs, small_model

SCHEDULE = json.loads(golden_path("nft/surgery_schedule.json").read_text())
PUBLISHED = Golden("nft/gradient_surgery.safetensors")
SHARED = Golden("nft/shared_attention_surgery_derived.safetensors")
ATOL = 1e-5  # of the largest element
RUNS, SIDES = ("plain", "surgery"), ("video", "audio")


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=ATOL * max(expected.abs().max().item(), 1e-30))


def notation(rules):
    return {str(block): rule["scale"] for rule in rules for block in rule["blocks"]}


def test_golden_schedule():
    scales = block_scales(notation(SCHEDULE["published_rules"]), SCHEDULE["num_blocks"])
    assert {str(number): scale for number, scale in enumerate(scales) if scale != SCHEDULE["default"]} == SCHEDULE[
        "parsed"
    ]


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ({"30": 0.1}, "from 0 to 29"),
        ({"3-1": 0.1}, "first and last"),
        ({"early": 0.1}, "first and last"),
        ({"0": -0.1}, "scale >= 0"),
        ({"0-3": 0.1, "3": 0.2}, "one scale"),
    ],
)
def test_bad_schedules_are_refused(scales, message):
    with pytest.raises(ValueError, match=message):
        block_scales(scales, 30)


class PublishedBlock(nn.Module):
    """A block of the release, reduced to its two cross attentions, with ours in their place."""

    def __init__(self, number, scale):
        super().__init__()
        self.scale, heads = scale, PUBLISHED.metadata["heads"]
        self.a2v, self.v2a = (
            self._attention(f"weights.transformer_blocks.{number}.{name}_attn.", heads)
            for name in ("audio_to_video", "video_to_audio")
        )

    def _attention(self, prefix, heads):
        weights = {name.removeprefix(prefix): PUBLISHED[name] for name in PUBLISHED.names if name.startswith(prefix)}
        attention = CrossAttention(weights["to_q.weight"].shape[0], heads, True, 1e-6)
        names = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0", "norm_q": "q_norm", "norm_k": "k_norm"}
        for own, name in names.items():
            for kind in ("weight", "bias"):
                if f"{name}.{kind}" in weights:
                    setattr(getattr(attention, own), kind, nn.Parameter(weights[f"{name}.{kind}"]))
        return attention

    def forward(self, video, audio):
        return video + self.a2v(video, scale_gradient(audio, self.scale)), audio + self.v2a(audio, video)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("run", RUNS)
def test_golden_surgery_in_the_release_s_cross_attention(run, side):
    num_blocks = len({name.split(".")[2] for name in PUBLISHED.names if name.startswith("weights.")})
    scales = block_scales(notation(PUBLISHED.metadata["rules"]) if run == "surgery" else {}, num_blocks)
    blocks = [PublishedBlock(number, scale) for number, scale in enumerate(scales)]
    tokens = {name: PUBLISHED[name].requires_grad_() for name in SIDES}
    video, audio = tokens["video"], tokens["audio"]
    for block in blocks:
        video, audio = block(video, audio)
    assert_close(video.detach(), PUBLISHED[f"{run}.out_video"])
    assert_close(audio.detach(), PUBLISHED[f"{run}.out_audio"])
    ({"video": video, "audio": audio}[side] * PUBLISHED[f"cotangent_{side}"]).sum().backward()
    for name in SIDES:
        assert_close(tokens[name].grad, PUBLISHED[f"{run}.{side}_loss.grad_{name}_input"])
    for number, block in enumerate(blocks):
        for projection in "qkv":
            gradient = getattr(block.a2v, projection).weight.grad
            golden = PUBLISHED[f"{run}.{side}_loss.grad.block{number}.a2v.to_{projection}"]
            assert_close(torch.zeros_like(golden) if gradient is None else gradient, golden)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("run", RUNS)
def test_golden_surgery_in_shared_attention(run, side):
    scales, heads = SHARED.metadata["scales"][run], SHARED.metadata["heads"]
    tokens = {name: SHARED[name].requires_grad_() for name in SIDES}
    num_video, dim = tokens["video"].shape[1:]
    layers = []
    for number, scale in enumerate(scales):
        layer = SelfAttention(dim, heads, qk_norm=False, eps=1e-6)
        layer.audio_gradient_scale = scale
        for name in "qkvo":
            projection = getattr(layer, name)
            projection.weight.data = SHARED[f"weights.layer{number}.{name}"].T
            projection.bias.data.zero_()
        layers.append(layer)
    hidden = torch.cat([tokens["video"], tokens["audio"]], dim=1)
    angles = torch.zeros(hidden.shape[1], dim // heads // 2)
    for layer in layers:
        hidden = hidden + layer(hidden, (angles.cos(), angles.sin()), num_video)
    out = dict(zip(SIDES, hidden.split([num_video, hidden.shape[1] - num_video], dim=1), strict=True))
    for name in SIDES:
        assert_close(out[name].detach(), SHARED[f"{run}.out_{name}"])
    (out[side] * SHARED[f"cotangent_{side}"]).sum().backward()
    for name in SIDES:
        assert_close(tokens[name].grad, SHARED[f"{run}.{side}_loss.grad_{name}"])
    for number, layer in enumerate(layers):
        for name in "qkvo":
            assert_close(getattr(layer, name).weight.grad.T, SHARED[f"{run}.{side}_loss.grad.layer{number}.{name}"])


def audio_gradients(scales):
    """Return a small network's outputs, and each loss's gradients at the audio latents and at the attention weights."""
    model = small_model().train()
    model.scale_audio_gradients(scales)
    given = inputs()
    gradients = {}
    for side in SIDES:
        given["audio"] = given["audio"].detach().requires_grad_()
        model.zero_grad()
        output = model(**given)
        getattr(output, side).square().mean().backward()
        weights = {name: value.grad for name, value in model.named_parameters() if ".self_attn." in name}
        gradients[side] = given["audio"].grad, weights
    return output, gradients


def test_the_network_hides_the_audio_tokens_from_the_video_loss_and_says_the_same():
    plain, before = audio_gradients({})
    scaled, after = audio_gradients({"0-1": 0.0})
    for side in SIDES:
        torch.testing.assert_close(getattr(scaled, side), getattr(plain, side))
    video_loss, _ = after["video"]
    assert before["video"][0].abs().max() > 0
    assert video_loss.abs().max() == 0
    # In the last block, the weights keep the full gradient of both losses.
    for side in SIDES:
        for name, gradient in after[side][1].items():
            if name.startswith("blocks.1."):
                torch.testing.assert_close(gradient, before[side][1][name])


def test_surgery_of_one_block_leaves_a_way_through_the_others():
    _, plain = audio_gradients({})
    _, partly = audio_gradients({"0": 0.5})
    assert 0 < partly["video"][0].norm() < plain["video"][0].norm()


def test_surgery_holds_with_gradient_checkpointing_and_ends_with_an_empty_schedule():
    model, given = small_model().train(), inputs()
    model.scale_audio_gradients({"0-1": 0.0})
    model.gradient_checkpointing = True
    given["audio"].requires_grad_()
    model(**given).video.square().mean().backward()
    assert given["audio"].grad.abs().max() == 0
    model.scale_audio_gradients({})
    model(**given).video.square().mean().backward()
    assert given["audio"].grad.abs().max() > 0
    with pytest.raises(ValueError, match="from 0 to 1"):
        model.scale_audio_gradients({"0-2": 0.1})
