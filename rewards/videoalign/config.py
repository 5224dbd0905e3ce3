"""Sizes and settings of a VideoAlign checkpoint; every default is the published one.

Source: docs/upstream/videoalign.md, sections 5 to 8.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.config_file import as_object, read_fields, read_object, with_fields
from rewards.weights import CONFIG_NAME

MODEL_CONFIG_NAME = "model_config.json"  # upstream's own
OVERRIDES_NAME = CONFIG_NAME  # ours: what differs from the published network, for smaller ones
DIMENSIONS = ("VQ", "MQ", "TA")
PUBLISHED_TEMPLATE_SHA256 = "fdb6309bac618dd0c8b1b589d3a0970a974f7856eecbb355a190b2dce54af700"
POOLINGS = ("special", "last", "mean")


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The language model; its vocabulary is the tokenizer's."""

    hidden_size: int = 1536
    intermediate_size: int = 8960
    num_hidden_layers: int = 28
    num_attention_heads: int = 12
    num_key_value_heads: int = 2
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1_000_000.0

    def __post_init__(self) -> None:
        if self.hidden_size % (2 * self.num_attention_heads):
            raise ValueError(
                f"hidden_size {self.hidden_size} does not split into {self.num_attention_heads} attention "
                "heads of even size. Change one of the two."
            )

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def rope_sections(self) -> tuple[int, int, int]:
        """Rotary frequencies of the time, height and width positions, which are all equal in this model."""
        half = self.head_dim // 2
        time, height = half // 4, (half - half // 4) // 2
        return time, height, half - time - height


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """The vision tower; it ends in the language model's hidden size."""

    depth: int = 32
    embed_dim: int = 1280
    num_heads: int = 16
    mlp_ratio: int = 4
    patch_size: int = 14  # pixels
    spatial_merge_size: int = 2  # patches per side of a token
    temporal_patch_size: int = 2  # frames

    @property
    def factor(self) -> int:
        """Both sides of a resized frame are multiples of this, in pixels."""
        return self.patch_size * self.spatial_merge_size

    @property
    def patch_dim(self) -> int:
        """Values in a patch: 3 colours, all its frames and pixels."""
        return 3 * self.temporal_patch_size * self.patch_size**2


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """Settings that upstream's file leaves open, since it has one size of network and one evaluation text."""

    text_config: TextConfig = field(default_factory=TextConfig)
    vision_config: VisionConfig = field(default_factory=VisionConfig)
    min_frame_pixels: int = 128 * 28 * 28  # wins over max_frame_pixels for small frames
    prompt_template_sha256: str = PUBLISHED_TEMPLATE_SHA256

    def __post_init__(self) -> None:
        if self.min_frame_pixels < 1:
            raise ValueError(f"min_frame_pixels is {self.min_frame_pixels}, but must be positive.")


@dataclass(frozen=True, kw_only=True)
class VideoAlignConfig(Overrides):
    """A whole checkpoint: network, front end and how it was adapted."""

    output_dim: int = 1  # values of the head per token
    pooling: str = "special"
    fps: float = 2.0  # frames sampled per second of the clip, unless num_frames is given
    num_frames: float | None = None  # frames sampled per clip
    max_frame_pixels: int = 448 * 448
    lora_r: int = 64
    lora_alpha: float = 128.0
    use_rslora: bool = False
    base_model: str = "Qwen/Qwen2-VL-2B-Instruct"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pooling not in POOLINGS:
            raise ValueError(f"reward_token is {self.pooling!r}, but must be one of {', '.join(POOLINGS)}.")
        allowed = (1, 3) if self.pooling == "special" else (3,)
        if self.output_dim not in allowed:
            raise ValueError(
                f"output_dim is {self.output_dim}, but three scores by reward_token {self.pooling!r} need "
                f"{' or '.join(map(str, allowed))}."
            )
        if not (self.fps > 0 and self.max_frame_pixels > 0 and self.lora_r > 0):
            raise ValueError(
                f"fps {self.fps}, max_frame_pixels {self.max_frame_pixels} and lora_r {self.lora_r} must all be "
                "positive. Correct the one that is not."
            )

    @property
    def lora_scale(self) -> float:
        return self.lora_alpha / (math.sqrt(self.lora_r) if self.use_rslora else self.lora_r)


def read_config(folder: Path) -> VideoAlignConfig:
    """The configuration of a checkpoint's root folder.

    `model_config.json` is upstream's file, of which the sections data_config, model_config and peft_lora_config are
    read (section 8). `config.json` beside it is optional and ours: the fields of `Overrides` that differ from the
    published ones.

    Raises:
        ValueError: model_config.json is missing or asks for something that is not supported; config.json has a key
            that is not known; a value in one of them has the wrong type.
    """
    path = folder / MODEL_CONFIG_NAME
    if not path.is_file():
        raise ValueError(
            f"{folder} holds no {MODEL_CONFIG_NAME}, so it is no VideoReward folder. Give the folder that holds that "
            "file and checkpoint-N/, as fetched from KwaiVGI/VideoReward."
        )
    published = read_object(path)
    data, model, lora = (
        as_object(published.get(name) or {}, f"{path}: {name}")
        for name in ("data_config", "model_config", "peft_lora_config")
    )
    _check_supported(path, data)
    settings = {
        **{name: data[name] for name in ("fps", "num_frames", "max_frame_pixels") if data.get(name) is not None},
        **{name: lora[name] for name in ("lora_r", "lora_alpha", "use_rslora") if lora.get(name) is not None},
        "output_dim": model.get("output_dim", 1),
        "pooling": "special" if model.get("use_special_tokens", True) else model.get("reward_token", "last"),
        "base_model": model.get("model_name_or_path") or VideoAlignConfig.base_model,
    }
    overrides = read_fields(folder / OVERRIDES_NAME, Overrides())
    return with_fields(VideoAlignConfig(**vars(overrides)), settings, str(path))


def _check_supported(path: Path, data: Mapping[str, Any]) -> None:
    dimensions = data.get("eval_dim", list(DIMENSIONS))
    if dimensions != list(DIMENSIONS):
        raise ValueError(
            f"{path}: eval_dim is {dimensions!r}, but this reward's columns are {', '.join(DIMENSIONS)} in this order. "
            "Give a checkpoint that was trained for all three."
        )
    sample_type = data.get("sample_type", "uniform")
    if sample_type != "uniform":
        raise ValueError(
            f"{path}: sample_type is {sample_type!r}, but only 'uniform', which the published checkpoint uses, is "
            "supported here."
        )
