"""JavisDiT++: one diffusion transformer for video and audio tokens (paper section 3; names as in the release).

Video tokens, then audio tokens, form one sequence.  Self-attention with 3-D rotary positions and cross-attention to
the text are shared; norm, modulation and feed-forward belong to each modality (MS-MoE), chosen by contiguous slice.
The video expert is modulated by rows 3-5 of the shared six-row modulation, every other one by three rows of its own.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.layers import (
    CrossAttention,
    Head,
    Modulation,
    SelfAttention,
    feed_forward,
    modulate,
    sinusoidal_embedding,
)
from model.positions import AudioPositionRule, rotary_table

WEIGHTS_NAME = "model.safetensors"
CONFIG_NAME = "config.json"
LATENT_FRAMES_PER_STEP = 4  # both video codecs turn 4n + 1 frames into n + 1 latent steps


class JointOutput(NamedTuple):
    """Predicted velocity (noise - data) per modality, None for an absent one."""

    video: Tensor | None  # (B, C, T, H, W)
    audio: Tensor | None  # (B, C, T, M)


@dataclass(frozen=True)
class ModalitySpec:
    """One token stream.  `prefix` starts the names of its parameters; the video's is empty, as in Wan2.1."""

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
    """Sizes and switches of the network; the defaults are the published 2.1 B model."""

    modalities: tuple[str, ...] = ("video", "audio")
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
    ffn: Literal["modality", "shared"] = "modality"
    audio_positions: AudioPositionRule = "ta_rope"
    video_channels: int = 16
    video_patch: tuple[int, int, int] = (1, 2, 2)
    audio_channels: int = 8
    audio_patch: tuple[int, int] = (2, 2)

    def __post_init__(self) -> None:
        if self.dim % (2 * self.num_heads):
            raise ValueError(f"dim {self.dim} does not split into {self.num_heads} heads of even size; change either.")
        unknown = set(self.modalities) - {"video", "audio"}
        if unknown or not self.modalities:
            raise ValueError(f"modalities {self.modalities} must be a non-empty subset of ('video', 'audio').")

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

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "JointDiTConfig":
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            raise ValueError(f"Unknown model settings {unknown}; known ones are {sorted(cls.__dataclass_fields__)}.")
        typed: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return cls(**typed)


class JointDiT(nn.Module):
    """The network.  Every tensor has the name and shape of the published checkpoint's."""

    def __init__(self, config: JointDiTConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        dim = config.dim
        self.text_embedding = nn.Sequential(
            nn.Linear(config.text_dim, dim), nn.GELU(approximate="tanh"), nn.Linear(dim, dim)
        )
        self.time_embedding = nn.Sequential(nn.Linear(config.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        for spec in config.specs:
            convolution: Any = nn.Conv3d if len(spec.patch) == 3 else nn.Conv2d
            self.add_module(f"{spec.prefix}patch_embedding", convolution(spec.channels, dim, spec.patch, spec.patch))
            self.add_module(f"{spec.prefix}head", Head(dim, spec.patch_dim, config.eps))
            if _has_own_modulation(config, spec):
                self.add_module(f"{spec.prefix}time_projection", nn.Sequential(nn.SiLU(), nn.Linear(dim, 3 * dim)))
        self.blocks = nn.ModuleList(JointBlock(config) for _ in range(config.num_layers))
        self._init_weights()

    def forward(
        self,
        video: Tensor | None,
        audio: Tensor | None,
        timestep: Tensor,
        text: Tensor,
        text_mask: Tensor,
        num_frames: int | None = None,
    ) -> JointOutput:
        """Velocity of noisy latents.

        Args:
            video: (B, C, T, H, W) or None.
            audio: (B, C, T, M) or None.
            timestep: (B,) in [0, 1000].
            text: (B, L, text_dim) text embeddings; positions with mask 0 are zeroed, not masked, as published.
            text_mask: (B, L), 1 for real tokens.
            num_frames: frames of the clip that audio alone belongs to; taken from `video` where that is given.

        Raises:
            ValueError: when neither modality is given, or one that the model does not have.
        """
        latents = self._check_inputs(video, audio)
        grids = {spec.name: _grid(latents[spec.name], spec) for spec in self.config.specs if spec.name in latents}
        tokens = {name: self._embed(name, latent) for name, latent in latents.items()}
        slices = _contiguous_slices(tokens)
        rotary = self._rotary(grids, num_frames, timestep.device)

        dtype = self.dtype
        context = self.text_embedding((text * text_mask[..., None]).to(dtype))
        time = self.time_embedding(sinusoidal_embedding(timestep, self.config.freq_dim).to(dtype)).float()
        shared = self.time_projection(time.to(dtype)).float().unflatten(1, (6, -1))
        own = {
            spec.name: self._child(spec, "time_projection")(time.to(dtype)).float().unflatten(1, (3, -1))
            for spec in self.config.specs
            if _has_own_modulation(self.config, spec)
        }

        hidden = torch.cat(list(tokens.values()), dim=1)  # (B, N, D)
        for block in self.blocks:
            if self.gradient_checkpointing and self.training:
                hidden = checkpoint(block, hidden, shared, own, slices, rotary, context, use_reentrant=False)
            else:
                hidden = block(hidden, shared, own, slices, rotary, context)
        velocity = {}
        for spec in self.config.specs:
            if spec.name in latents:
                patches = self._child(spec, "head")(hidden[:, slices[spec.name]], time)
                velocity[spec.name] = _unpatchify(patches, grids[spec.name], spec).to(latents[spec.name].dtype)
        return JointOutput(velocity.get("video"), velocity.get("audio"))

    @property
    def dtype(self) -> torch.dtype:
        return self.get_parameter("blocks.0.modulation").dtype

    @property
    def device(self) -> torch.device:
        return self.get_parameter("blocks.0.modulation").device

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Writes `config.json` and `model.safetensors`; `dtype` casts the stored copy."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in self.state_dict().items()}
        save_file(state, folder / WEIGHTS_NAME)
        (folder / CONFIG_NAME).write_text(json.dumps(asdict(self.config), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: str | Path, dtype: torch.dtype = torch.float32) -> "JointDiT":
        """Reads a folder written by `save_pretrained`."""
        folder = Path(folder)
        config = JointDiTConfig.from_dict(json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8")))
        with torch.device("meta"):
            model = cls(config)
        state = {name: tensor.to(dtype) for name, tensor in load_file(folder / WEIGHTS_NAME).items()}
        model.load_state_dict(state, strict=True, assign=True)
        return model.eval()

    def _check_inputs(self, video: Tensor | None, audio: Tensor | None) -> dict[str, Tensor]:
        given = {name: latent for name, latent in (("video", video), ("audio", audio)) if latent is not None}
        foreign = set(given) - set(self.config.modalities)
        if foreign or not given:
            raise ValueError(
                f"Latents were given for {sorted(given) or 'no modality'}, the model has {self.config.modalities}: "
                "pass at least one modality and None for each one the model lacks."
            )
        for spec in self.config.specs:
            if spec.name in given and given[spec.name].shape[1] != spec.channels:
                raise ValueError(
                    f"{spec.name} latents have {given[spec.name].shape[1]} channels, the model expects "
                    f"{spec.channels}: they were made by another codec; encode them with this model's."
                )
        return given

    def _child(self, spec: ModalitySpec, name: str) -> nn.Module:
        return self.get_submodule(spec.prefix + name)

    def _embed(self, name: str, latent: Tensor) -> Tensor:
        spec = next(spec for spec in self.config.specs if spec.name == name)
        embedding = self._child(spec, "patch_embedding")
        return embedding(latent.to(self.dtype)).flatten(2).transpose(1, 2)  # (B, N, D)

    def _rotary(self, grids: dict[str, Any], num_frames: int | None, device: torch.device) -> tuple[Tensor, Tensor]:
        video_grid, audio_grid = grids.get("video"), grids.get("audio")
        if video_grid is None and num_frames is None:
            raise ValueError("Audio alone needs num_frames, the length of the clip it belongs to, for its positions.")
        timeline = video_grid or ((num_frames or 1) // LATENT_FRAMES_PER_STEP + 1, 0, 0)
        cosine, sine = rotary_table(self.config.audio_positions, video_grid, audio_grid, timeline, self.config.head_dim)
        return cosine.to(device), sine.to(device)

    def _init_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for name, parameter in self.named_parameters():
            if name.endswith("patch_embedding.weight"):
                nn.init.xavier_uniform_(parameter.flatten(1))
            elif name.endswith("head.head.weight"):
                nn.init.zeros_(parameter)
            elif name.startswith(("text_embedding.", "time_embedding.")) and parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)


class JointBlock(nn.Module):
    """Shared attention, shared text attention, one feed-forward expert per modality."""

    def __init__(self, config: JointDiTConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.modulation = nn.Parameter(torch.randn(1, 6, dim) / dim**0.5)
        self.self_attn = SelfAttention(dim, config.num_heads, config.qk_norm, config.eps)
        self.norm3 = nn.LayerNorm(dim, config.eps) if config.cross_attn_norm else nn.Identity()
        self.cross_attn = CrossAttention(dim, config.num_heads, config.qk_norm, config.eps)
        for spec in config.specs:
            if config.ffn == "modality" or spec == config.specs[0]:
                self.add_module(f"{spec.prefix}ffn", feed_forward(dim, config.ffn_dim))
            if _has_own_modulation(config, spec):
                self.add_module(f"{spec.prefix}modulation", Modulation(3, dim))

    def forward(
        self,
        hidden: Tensor,
        shared: Tensor,
        own: dict[str, Tensor],
        slices: dict[str, slice],
        rotary: tuple[Tensor, Tensor],
        context: Tensor,
    ) -> Tensor:
        """(B, N, D) tokens; `shared` (B, 6, D) and `own` (B, 3, D) are float32 time modulations."""
        rows = (self.modulation.float() + shared).unsqueeze(2).unbind(1)  # 6 x (B, 1, D)
        dtype = context.dtype
        attended = self.self_attn(modulate(self._norm(hidden), rows[0], rows[1]).to(dtype), rotary)
        hidden = hidden + attended * rows[2]
        hidden = hidden + self.cross_attn(self.norm3(hidden.to(self.modulation.dtype)).to(dtype), context)
        experts = [
            self._expert(spec, hidden[:, slices[spec.name]], rows[3:], own, dtype)
            for spec in self.config.specs
            if spec.name in slices
        ]
        return torch.cat(experts, dim=1) if len(experts) > 1 else experts[0]

    def _expert(
        self,
        spec: ModalitySpec,
        hidden: Tensor,
        video_rows: tuple[Tensor, ...],
        own: dict[str, Tensor],
        dtype: torch.dtype,
    ) -> Tensor:
        owner = spec if self.config.ffn == "modality" else self.config.specs[0]
        rows = video_rows
        if spec.name in own:
            parameter = self.get_parameter(f"{spec.prefix}modulation.param")
            rows = (parameter.float() + own[spec.name]).unsqueeze(2).unbind(1)
        network = self.get_submodule(f"{owner.prefix}ffn")
        return hidden + network(modulate(self._norm(hidden), rows[0], rows[1]).to(dtype)) * rows[2]

    def _norm(self, hidden: Tensor) -> Tensor:
        return F.layer_norm(hidden.float(), hidden.shape[-1:], eps=self.config.eps)


def _has_own_modulation(config: JointDiTConfig, spec: ModalitySpec) -> bool:
    return bool(spec.prefix) and config.ffn == "modality"


def _grid(latent: Tensor, spec: ModalitySpec) -> tuple[int, ...]:
    sizes = latent.shape[2:]
    if len(sizes) != len(spec.patch) or any(size % patch for size, patch in zip(sizes, spec.patch, strict=True)):
        raise ValueError(f"{spec.name} latents of size {tuple(sizes)} do not split into patches of {spec.patch}.")
    return tuple(size // patch for size, patch in zip(sizes, spec.patch, strict=True))


def _contiguous_slices(tokens: dict[str, Tensor]) -> dict[str, slice]:
    slices, start = {}, 0
    for name, tensor in tokens.items():
        slices[name] = slice(start, start + tensor.shape[1])
        start += tensor.shape[1]
    return slices


def _unpatchify(patches: Tensor, grid: tuple[int, ...], spec: ModalitySpec) -> Tensor:
    """(B, N, patch * C), channel last in each patch, -> (B, C, *latent sizes)."""
    axes = len(grid)
    split = patches.unflatten(2, (*spec.patch, spec.channels)).unflatten(1, grid)
    order = [0, 2 * axes + 1]
    for axis in range(axes):
        order += [1 + axis, 1 + axes + axis]
    sizes = [size * patch for size, patch in zip(grid, spec.patch, strict=True)]
    return split.permute(order).reshape(patches.shape[0], spec.channels, *sizes)
