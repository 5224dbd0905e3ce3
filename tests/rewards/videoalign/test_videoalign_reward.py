"""The reward on checkpoint folders in the published layouts: what it loads, what it refuses, what it scores."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from media import AVClip, read_clip
from media.clip import empty_audio
from rewards import Prompt
from rewards.videoalign import VideoAlignReward
from rewards.videoalign.batches import group_by_length
from rewards.videoalign.config import read_config
from rewards.videoalign.prompt import ChatTokenizer, read_template
from tests.golden_files import ROOT, Golden, real_clips
from tests.rewards.videoalign.videoalign_folder import (
    CASES,
    TEMPLATE,
    golden_adapter,
    golden_inputs,
    golden_state,
    non_lora_state,
    small_tokenizer,
    unmerged_state,
    write_folder,
    write_overrides,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("videoalign") / "VideoReward")


@pytest.fixture(scope="module")
def reward(folder):
    return VideoAlignReward.load(str(folder.parent))


def clip(frames, height, width, fps, seed=0):
    video = np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), np.uint8)
    return AVClip(video, fps, empty_audio(), 0)


CLIPS = [clip(33, 64, 64, 16.0), clip(20, 48, 90, 8.0, 1), clip(9, 100, 40, 24.0, 2), clip(40, 64, 64, 10.0, 3)]
PROMPTS = [Prompt(str(i), text) for i, text in enumerate(["red ball", "dog runs and runs slowly", "ball", "a dog"])]


def scores_of(reward, clips=CLIPS, prompts=PROMPTS):
    return torch.stack([reward.score(clips, prompts)[column] for column in reward.columns], dim=1)


def assert_adapted(reward):
    golden = Golden(CASES)
    reward.network.video_features = lambda patches, grids: golden["A.video_embeds"]
    rewards = reward.network(*golden_inputs("A", golden))
    torch.testing.assert_close(rewards, golden["A.od1.peft.rewards"], atol=2e-5, rtol=0.0)


def test_importing_the_reward_imports_no_torch():
    code = "import sys, rewards.videoalign; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_full_checkpoint_with_unmerged_lora(folder):
    assert_adapted(VideoAlignReward.load(str(folder)))
    assert_adapted(VideoAlignReward.load(str(folder / "checkpoint-7")))
    assert_adapted(VideoAlignReward.load(str(folder / "checkpoint-7" / "model.pth")))


@pytest.mark.parametrize("named", [False, True])
def test_adapter_over_base_weights(tmp_path, named):
    files = {"adapter_model.safetensors": golden_adapter(), "non_lora_state_dict.pth": non_lora_state()}
    base = golden_state()
    del base["rm_head.weight"]
    for name in base:
        if name.startswith("visual.") or "embed_tokens" in name:
            base[name] = torch.zeros(3)  # replaced; the published base has other shapes, too
    base_folder = tmp_path / ("elsewhere" if named else "root/base_model")
    root = write_folder(tmp_path / "root", files, **({"model_name_or_path": str(base_folder)} if named else {}))
    with pytest.raises(ValueError, match=r"is an adapter and needs the weights of its base model"):
        VideoAlignReward.load(str(root))
    base_folder.mkdir()
    torch.save(base, base_folder / "weights.bin")
    assert_adapted(VideoAlignReward.load(str(root)))


def test_merged_weights_load_under_old_and_new_names(tmp_path):
    old = {"model.safetensors": golden_state()}
    new = {
        "model.safetensors": {
            ("model." if name.startswith("visual.") else "") + name.replace("model.", "model.language_model."): tensor
            for name, tensor in golden_state().items()
        }
    }
    loaded = [VideoAlignReward.load(str(write_folder(tmp_path / n, f))) for n, f in (("old", old), ("new", new))]
    assert torch.equal(scores_of(loaded[0]), scores_of(loaded[1]))


def test_the_highest_step_is_taken(tmp_path):
    write_folder(tmp_path, step=11352)
    write_folder(tmp_path, {"model.pth": golden_state()}, step=9999)
    assert_adapted(VideoAlignReward.load(str(tmp_path)))


def test_a_file_that_is_named_is_the_one_that_is_loaded(tmp_path):
    root = write_folder(tmp_path, {"model.pth": unmerged_state(), "model.safetensors": golden_state()})
    adapted, merged = (
        VideoAlignReward.load(str(root / "checkpoint-7" / n)) for n in ("model.pth", "model.safetensors")
    )
    assert_adapted(adapted)
    with pytest.raises(AssertionError):
        assert_adapted(merged)


def test_a_wrong_checkpoint_is_refused_with_what_it_looks_like(tmp_path):
    headless = {name: tensor for name, tensor in unmerged_state().items() if "rm_head" not in name}
    plain = {name: tensor for name, tensor in golden_state().items() if "rm_head" not in name}
    foreign = {"vfeat_extractor.norm.weight": torch.zeros(2)}
    for number, (state, message) in enumerate(
        [
            (headless, r"1 missing \(rm_head\.weight\)"),
            (plain, r"1 missing \(rm_head\.weight\).*looks like a Qwen2-VL model without a reward head"),
            (foreign, r"does not fit VideoAlignNetwork.*looks like Synchformer"),
        ]
    ):
        root = write_folder(tmp_path / str(number), {"model.pth": state})
        with pytest.raises(ValueError, match=message):
            VideoAlignReward.load(str(root))


def test_other_sizes_than_the_weights_are_refused(tmp_path):
    root = write_folder(tmp_path)
    (root / "config.json").unlink()
    write_overrides(root, text_config={"num_hidden_layers": 2})
    with pytest.raises(ValueError, match=r"misshapen.*looks like a VideoAlign \(VideoReward\) model"):
        VideoAlignReward.load(str(root))


def test_broken_lora_is_refused(tmp_path):
    state = unmerged_state()
    del state["base_model.model.model.layers.1.mlp.up_proj.lora_B.default.weight"]
    root = write_folder(tmp_path / "partial", {"model.pth": state})
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.up_proj\.weight by LoRA, but holds only its weight, lora_A"):
        VideoAlignReward.load(str(root))
    root = write_folder(tmp_path / "rank")
    settings = json.loads((root / "model_config.json").read_text())
    (root / "model_config.json").write_text(json.dumps(settings | {"peft_lora_config": {"lora_r": 8}}))
    with pytest.raises(ValueError, match=r"not of rank 8\. Correct lora_r"):
        VideoAlignReward.load(str(root))


def test_an_incomplete_folder_is_refused_with_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match=r"holds no checkpoint-N folder"):
        VideoAlignReward.load(str(tmp_path))
    root = write_folder(tmp_path / "a", {"adapter_model.safetensors": golden_adapter()})
    with pytest.raises(ValueError, match=r"non_lora_state_dict\.pth, of which there is only adapter_model"):
        VideoAlignReward.load(str(root))
    (root / "model_config.json").unlink()
    with pytest.raises(ValueError, match=r"holds no model_config\.json, so it is no VideoReward folder"):
        VideoAlignReward.load(str(root))


def test_a_missing_template_error_tells_where_to_get_it(tmp_path):
    root = write_folder(tmp_path)
    (root / "prompt_template.txt").unlink()
    write_overrides(root, prompt_template_sha256="fdb6309bac618dd0c8b1b589d3a0970a974f7856eecbb355a190b2dce54af700")
    with pytest.raises(
        ValueError, match=r"missing.*DETAILED_PROMPT_WITH_SPECIAL_TOKEN in prompt_template\.py.*fdb6309"
    ):
        VideoAlignReward.load(str(root))
    (root / "prompt_template.txt").write_text(TEMPLATE)
    with pytest.raises(ValueError, match=r"has the sha256 .*, not fdb6309.*newlines at the ends, count"):
        VideoAlignReward.load(str(root))


def test_settings_that_are_not_supported_are_refused(tmp_path):
    for number, (data, model, message) in enumerate(
        [
            ({"sample_type": "multi_pts"}, {}, r"sample_type is 'multi_pts'"),
            ({"eval_dim": ["MQ", "VQ", "TA"]}, {}, r"columns are VQ, MQ, TA in this order"),
            ({"fps": 0.0}, {}, r"must all be positive"),
            ({"fps": "2"}, {}, r"model_config\.json sets fps to '2': give a number"),
            ({}, {"output_dim": 2}, r"output_dim is 2, but .* need 1 or 3"),
            ({}, {"use_special_tokens": False, "reward_token": "mean"}, r"output_dim is 1, but .* need 3"),
        ]
    ):
        with pytest.raises(ValueError, match=message):
            read_config(write_folder(tmp_path / str(number), {}, data=data, **model))
    root = write_folder(tmp_path / "keys", {})
    write_overrides(root, text_config={"num_hiden_layers": 2})
    with pytest.raises(ValueError, match=r"unknown key 'num_hiden_layers': did you mean 'num_hidden_layers'"):
        read_config(root)
    write_overrides(root, fps=8.0)  # belongs into upstream's file
    with pytest.raises(ValueError, match=r"/config\.json has an unknown key 'fps'"):
        read_config(root)


def test_a_tokenizer_without_the_reward_tokens_is_refused():
    with pytest.raises(ValueError, match=r"holds \{'<\|TA_reward\|>': 0\}"):
        ChatTokenizer(small_tokenizer(), TEMPLATE.replace("<|TA_reward|>", ""), has_reward_tokens=True)
    tokenizer = small_tokenizer()
    tokenizer.get_vocab = lambda: {"red": 1}
    with pytest.raises(ValueError, match=r"lacks <\|im_start\|>"):
        ChatTokenizer(tokenizer, TEMPLATE, has_reward_tokens=True)


def test_a_score_depends_on_its_own_clip_and_prompt_only(reward, monkeypatch):
    together = scores_of(reward)
    alone = torch.cat([scores_of(reward, [c], [p]) for c, p in zip(CLIPS, PROMPTS, strict=True)])
    torch.testing.assert_close(together, alone, atol=5e-6, rtol=0.0)
    monkeypatch.setattr(VideoAlignReward, "tokens_at_once", 150)
    torch.testing.assert_close(scores_of(reward), alone, atol=5e-6, rtol=0.0)
    assert together.dtype == torch.float32
    assert (together[:, None] - together).abs().sum(-1).add(torch.eye(4)).min() > 1e-3  # no two clips alike


def test_only_text_alignment_depends_on_the_prompt(reward):
    one, other = (scores_of(reward, [CLIPS[0]], [Prompt("x", text)])[0] for text in ("red ball", "a dog runs"))
    torch.testing.assert_close(one[:2], other[:2], atol=2e-6, rtol=0.0)
    assert (one[2] - other[2]).abs() > 1e-3


def test_braces_in_a_prompt_are_text(reward):
    braces = reward.chat.chat("red {slowly} {0} {{x}}")
    assert "show red {slowly} {0} {{x}} <|TA_reward|>" in braces
    assert braces.startswith(
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
    )
    assert scores_of(reward, [CLIPS[0]], [Prompt("x", "{red")]).isfinite().all()


@pytest.mark.parametrize("mark", ["<|MQ_reward|>", "<|video_pad|>", "<|im_end|>", "<|endoftext|>"])
def test_a_prompt_with_the_models_own_marks_is_refused(reward, mark):
    with pytest.raises(ValueError, match=r"Prompt 'x': The prompt 'red .*Remove it"):
        reward.score([CLIPS[0]], [Prompt("x", f"red {mark} ball")])


def test_the_chat_has_a_place_for_every_video_token(reward):
    ids = reward.chat.encode("red ball", 5)
    assert ids.count(reward.chat.ids.video) == 5
    place = ids.index(reward.chat.ids.video)
    assert ids[place : place + 5] == [reward.chat.ids.video] * 5
    assert [token for token in ids if token in reward.chat.ids.rewards] == list(reward.chat.ids.rewards)


def test_a_single_frame_is_refused_by_name(reward):
    with pytest.raises(ValueError, match=r"Prompt '1': .*motion needs two"):
        reward.score([CLIPS[0], clip(1, 64, 64, 16.0)], PROMPTS[:2])


def test_a_score_that_is_not_finite_is_an_error(folder):
    broken = VideoAlignReward.load(str(folder))
    broken.network.rm_head.weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"gave \[nan, nan, nan\] for prompt '0'"):
        broken.score(CLIPS[:1], PROMPTS[:1])


def test_bfloat16_is_close_and_returns_float32(folder, reward):
    halved = VideoAlignReward.load(str(folder), dtype="bfloat16")
    assert halved.network.rm_head.weight.dtype == torch.bfloat16
    scores = scores_of(halved)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, scores_of(reward), atol=0.15, rtol=0.0)
    assert (scores.bfloat16() != scores).all()  # finer than bfloat16, so that candidates do not tie


def test_three_outputs_per_token_and_last_token_pooling_run(tmp_path):
    state = golden_state() | {"rm_head.weight": Golden(CASES)["od3.rm_head.weight"]}
    special = write_folder(tmp_path / "special", {"model.safetensors": state}, output_dim=3)
    last = write_folder(
        tmp_path / "last", {"model.safetensors": state}, output_dim=3, use_special_tokens=False, reward_token="last"
    )
    scores = [scores_of(VideoAlignReward.load(str(root))) for root in (special, last)]
    assert scores[0].shape == scores[1].shape == (4, 3)
    assert not torch.allclose(scores[0], scores[1])


def test_the_sampling_rate_of_the_folder_is_used(tmp_path, reward):
    faster = VideoAlignReward.load(str(write_folder(tmp_path / "fps", data={"fps": 8.0})))
    fixed = VideoAlignReward.load(str(write_folder(tmp_path / "frames", data={"num_frames": 6})))
    assert not torch.allclose(scores_of(faster), scores_of(reward))
    assert not torch.allclose(scores_of(fixed), scores_of(reward))


def test_an_unknown_dtype_is_refused(folder):
    with pytest.raises(ValueError, match=r"dtype is 'bf16': give a floating type"):
        VideoAlignReward.load(str(folder), dtype="bf16")


def test_both_protocols_agree(folder, reward):
    javisbench = VideoAlignReward.load(str(folder), protocol="javisbench")
    assert torch.equal(scores_of(javisbench), scores_of(reward))


def test_a_template_needs_exactly_one_place_for_the_prompt(tmp_path):
    import hashlib

    for text in ("no place", "{text_prompt} {text_prompt}", "{text_prompt} {}"):
        (tmp_path / "prompt_template.txt").write_text(text)
        with pytest.raises(ValueError, match=r"must hold \{text_prompt\} once"):
            read_template(tmp_path, hashlib.sha256(text.encode()).hexdigest())


def test_groups_hold_every_row_once_within_the_bound():
    lengths = [30, 5, 70, 10, 10, 200]
    groups = list(group_by_length(lengths, 100))
    assert sorted(index for group in groups for index in group) == list(range(6))
    assert all(len(group) == 1 or len(group) * max(lengths[i] for i in group) <= 100 for group in groups)
    assert len(groups) == 4


def test_real_files_are_scored(reward):
    paths = real_clips()[-2:]
    scores = scores_of(reward, [read_clip(path) for path in paths], [Prompt(path.name, "a dog") for path in paths])
    assert scores.shape == (len(paths), 3)
    assert scores.isfinite().all()
