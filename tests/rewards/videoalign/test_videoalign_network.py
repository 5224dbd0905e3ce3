"""The network gives the published class's numbers (transformers 4.45.2, golden files), from pixels to scores."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from core.state_files import fill_module
from rewards.videoalign.config import VideoAlignConfig
from rewards.videoalign.network import VideoAlignNetwork, pool
from rewards.videoalign.prompt import TokenIds
from rewards.videoalign.weights import lora_targets, merge_lora, published_state
from tests.golden_files import Golden, golden_path
from tests.rewards.videoalign.videoalign_folder import (
    CASES,
    FOLDER,
    golden_config,
    golden_inputs,
    golden_state,
    golden_tokens,
    non_lora_state,
    unmerged_state,
)

TOLERANCE = {"atol": 2e-5, "rtol": 0.0}


def network_of(state, **changes):
    config = golden_config(**changes)
    network = VideoAlignNetwork(config, golden_tokens()).eval()
    fill_module(network, merge_lora(state.items(), lora_targets(state), config), "golden weights")
    return network


def golden_network(output_dim, golden):
    state = golden_state()
    if output_dim == 3:
        state["rm_head.weight"] = golden["od3.rm_head.weight"]
    return network_of(state, output_dim=output_dim)


def given_features(network, case, golden):
    """Take the stored features in place of the vision tower's, so that this runs without the pixels."""
    network.video_features = lambda patches, grids: golden[f"{case}.video_embeds"]
    return network


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("va_weights", golden_state),
        ("va_peft_model_pth", unmerged_state),
        ("va_peft_non_lora_state_dict", non_lora_state),
    ],
)
def test_weights_made_from_names_are_the_golden_ones(name, state):
    expected = load_file(golden_path(f"{FOLDER}/{name}.safetensors"))
    made = state()
    if name == "va_weights":
        made["lm_head.weight"] = made["model.embed_tokens.weight"]  # tied
    assert made.keys() == expected.keys()
    # The compact copies hold the first row of each tensor.
    for key, tensor in made.items():  # the last bits of torch's normal draws depend on the processor
        torch.testing.assert_close(tensor[: len(expected[key])], expected[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", ["A", "B", "C"])
@pytest.mark.parametrize("output_dim", [1, 3])
@torch.inference_mode()
def test_rewards_and_token_logits_from_stored_video_features(case, output_dim):
    golden = Golden(CASES)
    network = given_features(golden_network(output_dim, golden), case, golden)
    inputs = golden_inputs(case, golden)
    attended = golden[f"{case}.attention_mask"].bool()
    logits = network.token_logits(*inputs)
    torch.testing.assert_close(logits[attended], golden[f"{case}.od{output_dim}.token_logits"][attended], **TOLERANCE)
    rewards = network(*inputs)
    torch.testing.assert_close(rewards, golden[f"{case}.od{output_dim}.rewards"], **TOLERANCE)
    assert (rewards - golden[f"{case}.neg.od{output_dim}.rewards_mrope"]).abs().max() > 0.1


@torch.inference_mode()
def test_rewards_from_pixels():
    golden = Golden(CASES)
    cases = [case for case in "ABC" if f"{case}.pixel_values_videos" in golden.names]
    assert cases
    for case in cases:
        inputs, network = golden_inputs(case, golden), golden_network(1, golden)
        torch.testing.assert_close(network.video_features(*inputs[1:]), golden[f"{case}.video_embeds"], **TOLERANCE)
        torch.testing.assert_close(network(*inputs), golden[f"{case}.od1.rewards"], **TOLERANCE)
        halved = network.bfloat16()(*inputs).float()
        torch.testing.assert_close(halved, golden[f"{case}.od1.rewards"], atol=0.1, rtol=0.0)


@pytest.mark.parametrize("case", ["A", "B"])
@torch.inference_mode()
def test_merged_lora_gives_the_adapted_rewards(case):
    golden = Golden(CASES)
    network = given_features(network_of(unmerged_state()), case, golden)
    inputs = golden_inputs(case, golden)
    attended = golden[f"{case}.attention_mask"].bool()
    torch.testing.assert_close(network(*inputs), golden[f"{case}.od1.peft.rewards"], **TOLERANCE)
    logits = network.token_logits(*inputs)
    torch.testing.assert_close(logits[attended], golden[f"{case}.od1.peft.token_logits"][attended], **TOLERANCE)


@pytest.mark.parametrize("case", ["A", "B"])
@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_pooling_at_the_last_token_and_over_all_before_it(case, pooling):
    golden = Golden(CASES)
    rewards = pool(golden[f"{case}.od3.token_logits"], golden[f"{case}.input_ids"], golden_tokens(), pooling)
    torch.testing.assert_close(rewards, golden[f"{case}.od3.rewards_{pooling}"], **TOLERANCE)


def test_columns_follow_the_order_of_the_reward_tokens_not_their_names():
    golden = Golden(CASES)
    rewards = pool(golden["C.od1.token_logits"], golden["C.input_ids"], golden_tokens(), "special")
    torch.testing.assert_close(rewards, golden["C.od1.rewards"], **TOLERANCE)
    assert (rewards - golden["C.neg.od1.rewards_by_token_id"]).abs().max() > 0.1


@torch.inference_mode()
def test_padding_and_company_do_not_change_a_score():
    golden = Golden(CASES)
    inputs = golden_inputs("A", golden)
    network = given_features(golden_network(1, golden), "A", golden)
    together = network(*inputs)
    split = golden["A.video_embeds"].split([12, 4])
    for row, length in enumerate((50, 43)):
        network.video_features = lambda patches, grids, row=row: split[row]
        alone = network(inputs[0][row : row + 1, :length], inputs[1], inputs[2][row : row + 1])
        torch.testing.assert_close(alone[0], together[row], atol=2e-6, rtol=0.0)


def test_a_row_without_exactly_three_reward_tokens_is_refused():
    golden = Golden(CASES)
    ids, tokens = golden["B.input_ids"].clone(), golden_tokens()
    logits = golden["B.od1.token_logits"]
    ids[0, 1:4] = tokens.rewards[0]  # six in a batch of one would pass a reshape
    with pytest.raises(ValueError, match=r"hold \[6\] reward tokens, but each needs 3"):
        pool(logits, ids, tokens, "special")


def test_video_tokens_that_do_not_match_the_clip_are_refused():
    golden = Golden(CASES)
    ids, patches, grids = golden_inputs("A", golden)
    network = given_features(golden_network(1, golden), "A", golden)
    with pytest.raises(ValueError, match=r"hold \[12, 4\] video tokens, but their clips fill \[4, 12\]"):
        network(ids, patches, grids.flip(0))  # the total is right


def test_every_weight_learns():
    torch.manual_seed(0)
    network = VideoAlignNetwork(golden_config(), golden_tokens())
    tokens = golden_tokens()
    ids = torch.tensor([[1, *[tokens.video] * 4, *tokens.rewards, 2]])
    patches, grids = torch.randn(16, golden_config().vision_config.patch_dim), torch.tensor([[1, 4, 4]])
    network(ids, patches, grids).sum().backward()
    assert not [name for name, weight in network.named_parameters() if weight.grad is None]
    assert network.visual.patch_embed.proj.weight.grad.abs().sum() > 0


def test_full_size_names_and_shapes_are_the_published_ones():
    manifest = json.loads(golden_path("upstream/manifest_videoreward_4_45.json").read_text(encoding="utf-8"))
    vocabulary = manifest["_meta"]["vocab_size_after_adding_3_tokens"]
    tokens = TokenIds(vocabulary_size=vocabulary, video=151656, pad=151643, rewards=(151657, 151658, 151659))
    with torch.device("meta"):
        network = VideoAlignNetwork(VideoAlignConfig(), tokens)
    full = {name: tuple(shape) for name, shape in manifest["full_model"].items() if name != "lm_head.weight"}
    assert {name: tuple(tensor.shape) for name, tensor in published_state(network).items()} == full
    stored = {name: torch.empty(shape, device="meta") for name, shape in manifest["peft_model_pth"].items()}
    assert len(stored) == 1123
    merged = dict(merge_lora(stored.items(), lora_targets(stored), VideoAlignConfig()))
    assert {name: tensor.shape for name, tensor in merged.items()} == {
        name: tensor.shape for name, tensor in network.state_dict().items()
    }


def test_what_no_shape_tells_is_as_published():
    config = VideoAlignConfig()
    text, vision = config.text_config, config.vision_config
    assert (text.num_attention_heads, text.num_key_value_heads, text.rope_sections) == (12, 2, (16, 24, 24))
    assert (text.rms_norm_eps, text.rope_theta) == (1e-6, 1e6)
    assert (vision.num_heads, vision.factor, vision.temporal_patch_size) == (16, 28, 2)
    assert (config.fps, config.max_frame_pixels, config.min_frame_pixels, config.lora_scale) == (2, 200_704, 100_352, 2)
