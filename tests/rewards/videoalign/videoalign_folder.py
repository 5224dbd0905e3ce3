"""A small VideoReward in the published folder layout: real names, made-up sizes, tokenizer and text."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from rewards.videoalign.config import TextConfig, VideoAlignConfig, VisionConfig
from rewards.videoalign.network import VideoAlignNetwork
from rewards.videoalign.prompt import CONTROL_TOKENS, REWARD_TOKENS, TokenIds
from rewards.videoalign.weights import published_state
from tests.golden_files import Golden, golden_path
from tests.rewards.procedural import procedural_tensor

FOLDER = "videoalign_audiobox"
CASES = f"{FOLDER}/va_cases.safetensors"
TEMPLATE = "\nRate it. <|VQ_reward|> now motion <|MQ_reward|>\nIt was asked to show {text_prompt} <|TA_reward|>\n"
TEXT = (
    ". system user assistant You are a helpful Rate it now motion It was asked to show ball dog red runs and slowly { }"
)
WORDS = TEXT.split()


def golden_json(name: str) -> dict[str, Any]:
    return json.loads(golden_path(f"{FOLDER}/{name}.json").read_text(encoding="utf-8"))


def golden_config(**changes: Any) -> VideoAlignConfig:
    meta = golden_json("va_cases")
    settings = {
        "text_config": TextConfig(**_known(TextConfig, meta["text_config"])),
        "vision_config": VisionConfig(**_known(VisionConfig, meta["vision_config"])),
        "lora_r": meta["lora"]["r"],
        "lora_alpha": meta["lora"]["lora_alpha"],
    }
    return VideoAlignConfig(**(settings | changes))


def golden_tokens() -> TokenIds:
    meta = golden_json("va_cases")
    return TokenIds(
        vocabulary_size=meta["text_config"]["vocab_size"],
        video=meta["token_ids"]["video_token_id"],
        pad=meta["token_ids"]["pad_token_id"],
        rewards=tuple(meta["special_token_ids"]),
    )


def golden_state() -> dict[str, Tensor]:
    """The golden weights, under published names and without LoRA."""
    seed = golden_json("va_cases")["seed"]
    with torch.device("meta"):
        shapes = published_state(VideoAlignNetwork(golden_config(), golden_tokens()))
    return {name: procedural_tensor(name, tensor.shape, seed) for name, tensor in shapes.items()}


def golden_adapter() -> dict[str, Tensor]:
    return load_file(golden_path(f"{FOLDER}/va_peft_adapter_model.safetensors"))


def non_lora_state() -> dict[str, Tensor]:
    """What is saved beside an adapter: everything that was trained and is no LoRA."""
    parts = ("visual.", "rm_head.", "model.embed_tokens.")
    return {f"base_model.model.{name}": tensor for name, tensor in golden_state().items() if name.startswith(parts)}


def unmerged_state() -> dict[str, Tensor]:
    """The golden weights with their adapter as one peft state, as the published model.pth is."""
    adapter = {name.replace(".weight", ".default.weight"): tensor for name, tensor in golden_adapter().items()}
    adapted = {name.partition(".lora_")[0] for name in adapter}
    state = {}
    for name, tensor in golden_state().items():
        module, _, leaf = f"base_model.model.{name}".rpartition(".")
        state[f"{module}.base_layer.{leaf}" if module in adapted else f"{module}.{leaf}"] = tensor
    state["base_model.model.lm_head.weight"] = state["base_model.model.model.embed_tokens.weight"].clone()
    return state | adapter


def small_tokenizer() -> PreTrainedTokenizerFast:
    """Words and the golden files' token ids."""
    ids = golden_json("va_cases")["token_ids"]
    names = dict(
        zip(CONTROL_TOKENS, ("im_start", "im_end", "vision_start_token_id", "vision_end_token_id"), strict=False)
    )
    special = {token: ids[name] for token, name in names.items()}
    special |= {"<|endoftext|>": ids["pad_token_id"], "<|image_pad|>": ids["image_token_id"]}
    special |= {"<|video_pad|>": ids["video_token_id"]}
    special |= {token: ids[token[2:4]] for token in REWARD_TOKENS}
    free = (number for number in range(max(special.values())) if number not in special.values())
    words = ["[UNK]", *WORDS]
    vocabulary = special | dict(zip(words, free, strict=False))
    vocabulary |= {f"[{number}]": number for number in free}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.add_special_tokens(list(special))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|endoftext|>", unk_token="[UNK]")


def write_folder(
    root: Path,
    files: dict[str, dict[str, Tensor]] | None = None,
    *,
    step: int = 7,
    data: dict | None = None,
    **model: Any,
) -> Path:
    """A checkpoint with these weight files (default: golden weights and adapter as model.pth) in checkpoint-<step>."""
    folder = root / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    small_tokenizer().save_pretrained(folder / "tokenizer")
    for name, state in ({"model.pth": unmerged_state()} if files is None else files).items():
        if name.endswith(".safetensors"):
            save_file(state, folder / name)
        else:
            torch.save(state, folder / name)
    meta = golden_json("va_cases")
    published = {
        "data_config": {"fps": 2.0, "max_frame_pixels": 84 * 84, "eval_dim": ["VQ", "MQ", "TA"], **(data or {})},
        "model_config": {"output_dim": 1, "use_special_tokens": True, **model},
        "peft_lora_config": {"lora_r": meta["lora"]["r"], "lora_alpha": meta["lora"]["lora_alpha"]},
        "inference_config": {"VQ_mean": 3.6757},
    }
    (root / "model_config.json").write_text(json.dumps(published), encoding="utf-8")
    (root / "prompt_template.txt").write_bytes(TEMPLATE.encode())
    write_overrides(root)
    return root


def write_overrides(root: Path, **changes: Any) -> None:
    meta = golden_json("va_cases")
    overrides = {
        "text_config": _known(TextConfig, meta["text_config"]),
        "vision_config": _known(VisionConfig, meta["vision_config"]),
        "min_frame_pixels": 28 * 28,
        "prompt_template_sha256": hashlib.sha256(TEMPLATE.encode()).hexdigest(),
    }
    (root / "config.json").write_text(json.dumps(overrides | changes), encoding="utf-8")


def golden_inputs(case: str, golden: Golden) -> tuple[Tensor, Tensor, Tensor]:
    """Input ids, patches (empty where the compact subset leaves them out) and grids."""
    patches = golden.get(f"{case}.pixel_values_videos")
    return golden[f"{case}.input_ids"], torch.empty(0) if patches is None else patches, golden[f"{case}.video_grid_thw"]


def _known(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    return {one.name: values[one.name] for one in fields(kind)}
