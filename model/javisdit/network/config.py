"""Configuration of the network, the published sizes by name, and translation from and to the release's settings."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from model.data.latent_schema import MODALITIES
from model.presets import PRESETS, preset_path

CONFIG_NAME = "config.json"
FFN = Literal["modality", "shared"]
AudioPositionRule = Literal["ta_rope", "ta_rope_floor", "vanilla", "interpolate", "interleave"]
AUDIO_POSITION_RULES: tuple[str, ...] = get_args(AudioPositionRule)

_MODALITIES_OF_TYPE = {"t2av": MODALITIES, "t2v": ("video",), "t2a": ("audio",)}
_RULE_OF_PE_TYPE: dict[str, AudioPositionRule] = {
    "interleave_offset": "ta_rope",
    "vanilla": "vanilla",
    "interpolate": "interpolate",
    "interleave": "interleave",
}
_FIELD_OF_SETTING = {  # the release's name -> this project's name, for values that need no translation
    **{name: name for name in ("dim", "ffn_dim", "num_heads", "num_layers", "freq_dim", "text_dim", "text_len")},
    **{name: name for name in ("qk_norm", "cross_attn_norm", "eps")},
    "in_dim": "video_channels",
    "patch_size": "video_patch",
    "audio_in_dim": "audio_channels",
    "audio_patch_size": "audio_patch",
}
_WITHOUT_EFFECT = {"weight_init_from", "init_from_video_branch", "train_audio_specific_blocks", "full_finetuning"}
_WITHOUT_EFFECT |= {"class_drop_prob", "type", "from_pretrained"}  # for training or bookkeeping only
_WITHOUT_EFFECT |= {"_class_name", "_diffusers_version", "_name_or_path"}
# The release's own defaults for these describe another model, so a config must give them.
_NEVER_DEFAULT = ("model_type", "dim", "ffn_dim", "num_heads", "num_layers")
_REQUIRED = {  # settings of the release that would select another network -> the only supported value
    "window_size": (-1, -1),
    "audio_special_token": False,
    "audio_specific_text_embedding": False,
}
_FIELD_OF_DIFFUSERS = {
    "num_attention_heads": "num_heads",
    "in_channels": "in_dim",
    "out_channels": "out_dim",
}


@dataclass(frozen=True)
class ModalitySpec:
    """One modality's token stream. Its parameter names start with `prefix`, which is empty for video, as in Wan2.1."""

    name: str
    prefix: str
    channels: int
    patch: tuple[int, ...]  # patch size along each latent axis

    @property
    def patch_dim(self) -> int:
        size = self.channels
        for axis in self.patch:
            size *= axis
        return size


@dataclass(frozen=True)
class JointDiTConfig:
    """Sizes and switches of the network; the defaults are those of the published 2.1 B model."""

    modalities: tuple[str, ...] = MODALITIES
    dim: int = 1536
    ffn_dim: int = 8960
    num_heads: int = 12
    num_layers: int = 30
    freq_dim: int = 256
    text_dim: int = 4096
    text_len: int = 512
    qk_norm: bool = True
    cross_attn_norm: bool = True
    eps: float = 1e-6
    ffn: FFN = "modality"
    audio_positions: AudioPositionRule = "ta_rope"
    video_channels: int = 16
    video_patch: tuple[int, int, int] = (1, 2, 2)
    audio_channels: int = 8
    audio_patch: tuple[int, int] = (2, 2)

    def __post_init__(self) -> None:
        if self.dim % (2 * self.num_heads):
            raise ValueError(f"dim {self.dim} does not split into {self.num_heads} heads of even size: change either.")
        allowed = {
            "modalities": tuple(_MODALITIES_OF_TYPE.values()),  # tokens and positions follow this order
            "ffn": get_args(FFN),
            "audio_positions": AUDIO_POSITION_RULES,
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}, but must be one of {', '.join(map(repr, values))}."
                )

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads

    @property
    def specs(self) -> tuple[ModalitySpec, ...]:
        known = {
            "video": ModalitySpec("video", "", self.video_channels, self.video_patch),
            "audio": ModalitySpec("audio", "audio_", self.audio_channels, self.audio_patch),
        }
        return tuple(known[name] for name in self.modalities)

    def expert(self, spec: ModalitySpec) -> str:
        """Return the parameter prefix of the feed-forward expert and the modulation that a modality uses."""
        return spec.prefix if self.ffn == "modality" else ""

    @property
    def experts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.expert(spec) for spec in self.specs))

    def num_tokens(self, latent_sizes: Mapping[str, Sequence[int]]) -> int:
        """Return the number of tokens of one clip.

        Args:
            latent_sizes: modality -> latent size, (T, H, W) for video and (T, M) for audio.
        """
        patches = {spec.name: math.prod(spec.patch) for spec in self.specs}
        return sum(math.prod(size) // patches[name] for name, size in latent_sizes.items())

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> JointDiTConfig:
        """Build a configuration from the fields by name, as `config.json` holds them.

        Raises:
            ValueError: for an unknown field, or a value out of range.
        """
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            raise ValueError(
                f"The model settings {unknown} are unknown: remove them, or use {sorted(cls.__dataclass_fields__)}."
            )
        typed: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return cls(**typed)

    @classmethod
    def from_preset(cls, name: str) -> JointDiTConfig:
        """Return the configuration of a published size (`SIZES`) or a shipped preset by its name.

        Raises:
            ValueError: for an unknown name.
        """
        if name in SIZES:
            return SIZES[name]
        if name in PRESETS:
            path = preset_path(name) / "transformer" / CONFIG_NAME
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        raise ValueError(f"There is no size {name!r}: choose one of {', '.join((*SIZES, *PRESETS))}.")

    @classmethod
    def from_published(cls, settings: dict[str, Any]) -> JointDiTConfig:
        """Translate the `model` section of a release's config, or the `config.json` of a Wan2.1 transformer.

        Raises:
            ValueError: for a setting that is unknown or missing, or that selects another network than this one.
        """
        settings = _without_diffusers_names(settings)
        translated = {"model_type", "audio_pe_type", "dual_ffn", "out_dim", "audio_out_dim"}
        unknown = sorted(set(settings) - translated - set(_FIELD_OF_SETTING) - _WITHOUT_EFFECT - set(_REQUIRED))
        if unknown:
            raise ValueError(f"The release has no model settings {unknown}: remove them, or correct their spelling.")
        _check_complete(settings)
        _check_same_network(settings)
        fields = {_FIELD_OF_SETTING[name]: value for name, value in settings.items() if name in _FIELD_OF_SETTING}
        return cls.from_dict(
            {
                "modalities": _MODALITIES_OF_TYPE[settings["model_type"]],
                "audio_positions": _RULE_OF_PE_TYPE[settings.get("audio_pe_type", "interleave_offset")],
                "ffn": "modality" if settings.get("dual_ffn", True) else "shared",
                **fields,
            }
        )

    def to_published(self) -> dict[str, Any]:
        """Return the `model` section of a release's config for this network.

        Raises:
            ValueError: if the release cannot express this network.
        """
        types = {modalities: name for name, modalities in _MODALITIES_OF_TYPE.items()}
        rules = {rule: name for name, rule in _RULE_OF_PE_TYPE.items()}
        if self.audio_positions not in rules:
            raise ValueError(
                f"audio_positions is {self.audio_positions!r}, which the release does not have: use one of "
                f"{sorted(rules)}."
            )
        fields = {name: asdict(self)[field] for name, field in _FIELD_OF_SETTING.items()}
        fields |= {"out_dim": self.video_channels, "audio_out_dim": self.audio_channels}
        fields |= {"model_type": types[self.modalities], "audio_pe_type": rules[self.audio_positions]}
        return fields | {"dual_ffn": self.ffn == "modality"} | _REQUIRED


# Published sizes by name: JavisDiT++ (release v1.0), its stage-1 model, and the video model from which both start.
SIZES = {
    "javisdit_pp": JointDiTConfig(),
    "javisdit_pp_audio": JointDiTConfig(modalities=("audio",)),
    "wan21_t2v_1_3b": JointDiTConfig(modalities=("video",)),
}


def _without_diffusers_names(settings: dict[str, Any]) -> dict[str, Any]:
    """Rename the settings of diffusers' WanTransformer3DModel to the release's names; return others unchanged."""
    if settings.get("_class_name") != "WanTransformer3DModel":
        return settings
    image_only = ("added_kv_proj_dim", "image_dim", "pos_embed_seq_len")
    foreign = {name: settings[name] for name in image_only if settings.get(name) is not None}
    if foreign:
        raise ValueError(
            f"This is an image-to-video Wan2.1 transformer ({foreign}), which has other inputs: give a text-to-video "
            "one."
        )
    dropped = {*image_only, "attention_head_dim", "rope_max_seq_len", "qk_norm"}
    renamed = {_FIELD_OF_DIFFUSERS.get(name, name): v for name, v in settings.items() if name not in dropped}
    if missing := {"num_attention_heads", "attention_head_dim"} - set(settings):
        raise ValueError(f"The Diffusers configuration lacks {sorted(missing)}: fetch or copy the whole file.")
    dim = settings["num_attention_heads"] * settings["attention_head_dim"]
    return renamed | {"dim": dim, "qk_norm": settings.get("qk_norm") is not None, "model_type": "t2v"}


def _check_complete(settings: dict[str, Any]) -> None:
    needed = _NEVER_DEFAULT if settings.get("model_type") == "t2v" else (*_NEVER_DEFAULT, "dual_ffn")
    if missing := [name for name in needed if name not in settings]:
        raise ValueError(f"The model settings lack {missing}: give the whole model section of the config.")


def _check_same_network(settings: dict[str, Any]) -> None:
    for name, known in (("model_type", _MODALITIES_OF_TYPE), ("audio_pe_type", _RULE_OF_PE_TYPE)):
        if settings.get(name, next(iter(known))) not in known:
            raise ValueError(
                f"{name} is {settings[name]!r}, which this network does not support: use one of {list(known)}."
            )
    for name, value in _REQUIRED.items():
        given = settings.get(name, value)
        if (tuple(given) if isinstance(given, list) else given) != value:
            raise ValueError(
                f"{name} is {given!r}, which selects another network than the published one: use {value!r}."
            )
    for name in ("", "audio_"):
        default = JointDiTConfig.audio_channels if name else JointDiTConfig.video_channels
        given_in, given_out = (settings.get(f"{name}{side}_dim", default) for side in ("in", "out"))
        if given_in != given_out:
            raise ValueError(
                f"{name}in_dim {given_in} and {name}out_dim {given_out} differ, but this network has one size for "
                "both: make them equal."
            )
