"""Configuration of AudioBox-Aesthetics: the constructor arguments in a checkpoint's `config.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

AXES = ("CE", "CU", "PC", "PQ")  # content enjoyment and usefulness, production complexity and quality

_PUBLISHED_TRANSFORM = {
    "CE": {"mean": 5.06865, "std": 1.93029},
    "CU": {"mean": 5.73633, "std": 1.75669},
    "PC": {"mean": 3.18591, "std": 1.86637},
    "PQ": {"mean": 6.57505, "std": 1.51466},
}

# Other values are another network, which has no public checkpoint.
_FIXED = {"proj_act_fn": "gelu", "proj_dropout": 0, "use_weighted_layer_sum": True, "output_dim": 1}


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Sizes of the WavLM encoder under the names of transformers' WavLMConfig; the defaults are WavLM-base."""

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    conv_dim: tuple[int, ...] = (512,) * 7
    conv_kernel: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_stride: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    num_conv_pos_embeddings: int = 128
    num_conv_pos_embedding_groups: int = 16
    num_buckets: int = 320
    max_bucket_distance: int = 800

    def __post_init__(self) -> None:
        for name in ("num_attention_heads", "num_conv_pos_embedding_groups"):
            if self.hidden_size % getattr(self, name):
                raise ValueError(
                    f"hidden_size {self.hidden_size} does not divide into {name} {getattr(self, name)} equal parts: "
                    "choose a multiple."
                )
        if not len(self.conv_dim) == len(self.conv_kernel) == len(self.conv_stride):
            raise ValueError(
                f"conv_dim, conv_kernel and conv_stride have {len(self.conv_dim)}, {len(self.conv_kernel)} and "
                f"{len(self.conv_stride)} entries: give each one per convolution."
            )

    @property
    def num_layer_results(self) -> int:
        """Number of layer results that the heads weigh: the input of the first layer and the output of each."""
        return self.num_hidden_layers + 1

    def num_frames(self, num_samples: int) -> int:
        """Frames that the convolutions make of a waveform; none where it is shorter than their reach."""
        for kernel, stride in zip(self.conv_kernel, self.conv_stride, strict=True):
            num_samples = max(0, (num_samples - kernel) // stride + 1)
        return num_samples


@dataclass(frozen=True, kw_only=True)
class AudioBoxConfig:
    """Arguments of the published class; the defaults are those of the published weights.

    Source: docs/upstream/audiobox.md, section 2.

    Raises ValueError for values that this implementation has no network for.
    """

    proj_num_layer: int = 5  # linear layers of a head
    proj_ln: bool = True  # a LayerNorm after each of them but the last
    proj_act_fn: str = "gelu"
    proj_dropout: float = 0
    nth_layer: int = 13  # layer results that a head weighs
    use_weighted_layer_sum: bool = True
    precision: str | int = "32"  # without effect, upstream too: the dtype is chosen when loading
    normalize_embed: bool = True  # to length 1, before the head
    output_dim: int = 1
    freeze_encoder: bool = True  # concerns upstream's training alone
    target_transform: Mapping[str, Mapping[str, float]] = field(default_factory=lambda: _PUBLISHED_TRANSFORM)
    wavlm: EncoderConfig = field(default_factory=EncoderConfig)  # ours: not in the published file, which has one size

    def __post_init__(self) -> None:
        for name, value in _FIXED.items():
            if getattr(self, name) != value:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}, but only checkpoints with {name} {value!r} can be built here."
                )
        if self.nth_layer != self.wavlm.num_layer_results:
            raise ValueError(
                f"nth_layer is {self.nth_layer}, but an encoder of {self.wavlm.num_hidden_layers} layers has "
                f"{self.wavlm.num_layer_results} results to weigh: make nth_layer one more than num_hidden_layers."
            )
        if self.proj_num_layer < 1:
            raise ValueError(f"proj_num_layer is {self.proj_num_layer}: a head has at least one linear layer.")
        for axis in AXES:
            self._check_transform(axis)

    def _check_transform(self, axis: str) -> None:
        entry = self.target_transform.get(axis)
        values = [entry.get(key) for key in ("mean", "std")] if isinstance(entry, Mapping) else [None]
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
            raise ValueError(
                f"target_transform gives {entry!r} for the axis {axis}: each of {', '.join(AXES)} needs numbers `mean` "
                "and `std`, without which a prediction is no score."
            )
