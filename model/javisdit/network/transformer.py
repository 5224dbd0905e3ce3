"""JavisDiT++: one diffusion transformer for video and audio tokens (paper section 3; names as in the release).

Video tokens followed by audio tokens form one sequence. Self-attention with 3-D rotary positions and cross-attention
to the text are shared; norm, modulation and feed-forward are separate per modality (MS-MoE) and act on contiguous
slices. Rows 3-5 of the shared six-row modulation modulate the video expert; every other expert has three own rows.

Precision follows the release: the time embedding, its projections and the heads compute in float32, the blocks in the
dtype of the weights, and timesteps are rounded to that dtype first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from core.atomic import atomic_path, atomic_write_text
from core.state_files import StateFiles, fill_module
from model.javisdit.network.attention import ATTENTION_BACKENDS, Attention, CrossAttention, SelfAttention
from model.javisdit.network.config import CONFIG_NAME, JointDiTConfig, ModalitySpec
from model.javisdit.network.gradient_surgery import block_scales
from model.javisdit.network.layers import (
    Float32Linear,
    Head,
    Modulation,
    feed_forward,
    modulate,
    sinusoidal_embedding,
    time_projection,
)
from model.javisdit.network.positions import rotary_table
from model.javisdit.network.sizes import FRAMES_PER_STEP

WEIGHTS_NAME = "model.safetensors"
SHARED_ROWS, EXPERT_ROWS = 6, 3  # rows of modulation: shift, scale and gate, of attention and of the feed-forward


class JointOutput(NamedTuple):
    """Predicted velocity (noise - data) per modality in float32, None for an absent one."""

    video: Tensor | None  # (B, C, T, H, W)
    audio: Tensor | None  # (B, C, T, M)


class JointDiT(nn.Module):
    """The JavisDiT++ network. Every tensor has the same name and shape as in the published checkpoint."""

    def __init__(self, config: JointDiTConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        dim = config.dim
        self.text_embedding = nn.Sequential(
            nn.Linear(config.text_dim, dim), nn.GELU(approximate="tanh"), nn.Linear(dim, dim)
        )
        self.time_embedding = nn.Sequential(Float32Linear(config.freq_dim, dim), nn.SiLU(), Float32Linear(dim, dim))
        self.time_projection = time_projection(dim, SHARED_ROWS)
        for spec in config.specs:
            convolution: Any = nn.Conv3d if len(spec.patch) == 3 else nn.Conv2d
            self.add_module(f"{spec.prefix}patch_embedding", convolution(spec.channels, dim, spec.patch, spec.patch))
            self.add_module(f"{spec.prefix}head", Head(dim, spec.patch_dim, config.eps))
        for prefix in filter(None, config.experts):
            self.add_module(f"{prefix}time_projection", time_projection(dim, EXPERT_ROWS))
        self.blocks = nn.ModuleList(JointBlock(config) for _ in range(config.num_layers))
        for name, module in self.named_modules():
            init_weights(name, module)

    def forward(
        self,
        video: Tensor | None,
        audio: Tensor | None,
        timestep: Tensor,
        text: Tensor,
        text_mask: Tensor,
        num_frames: int | None = None,
    ) -> JointOutput:
        """Predict the velocity (noise - data) of noisy latents.

        Args:
            video: (B, C, T, H, W) or None.
            audio: (B, C, T, M) or None.
            timestep: (B,) in [0, 1000].
            text: (B, L, text_dim) text embeddings; positions with mask 0 are set to zero, not masked, as published.
            text_mask: (B, L), 1 for real tokens.
            num_frames: number of frames of the clip, needed if only audio is given; otherwise taken from `video`.

        Raises:
            ValueError: if no modality is given, or one that the model does not have.
        """
        latents = self._check_inputs(video, audio)
        specs = [spec for spec in self.config.specs if spec.name in latents]
        grids = {spec.name: _grid(latents[spec.name], spec) for spec in specs}
        tokens = {spec.name: self._embed(latents[spec.name], spec) for spec in specs}
        slices = _contiguous_slices(tokens)
        rotary = self._rotary(grids, num_frames, timestep.device)

        context = self.text_embedding(text.to(self.dtype).masked_fill(text_mask[..., None] == 0, 0.0))
        time = self.time_embedding(sinusoidal_embedding(timestep.to(self.dtype), self.config.freq_dim))
        rows = {prefix: self._modulation(prefix, time) for prefix in ("", *self.config.experts)}

        hidden = torch.cat(list(tokens.values()), dim=1).to(self.dtype)  # (B, N, D)
        for block in self.blocks:
            if self.gradient_checkpointing and self.training:
                hidden = checkpoint(block, hidden, rows, slices, rotary, context, use_reentrant=False)
            else:
                hidden = block(hidden, rows, slices, rotary, context)
        velocity = {
            spec.name: _unpatchify(
                self._child(spec, "head")(hidden[:, slices[spec.name]], time), grids[spec.name], spec
            )
            for spec in specs
        }
        return JointOutput(velocity.get("video"), velocity.get("audio"))

    @property
    def dtype(self) -> torch.dtype:
        return self.get_parameter("blocks.0.modulation").dtype

    @property
    def device(self) -> torch.device:
        return self.get_parameter("blocks.0.modulation").device

    def set_attention_backend(self, name: str) -> None:
        """Select the kernel of every attention: "auto", "flash", "cudnn", "efficient" or "math".

        Raises:
            ValueError: for another name. A backend that the device lacks fails in the first forward pass.
        """
        if name not in ATTENTION_BACKENDS:
            raise ValueError(f"The attention backend {name!r} is unknown: use one of {', '.join(ATTENTION_BACKENDS)}.")
        for module in self.modules():
            if isinstance(module, Attention):
                module.backend = ATTENTION_BACKENDS[name]

    def scale_audio_gradients(self, scales: Mapping[str, float]) -> None:
        """Set the `SelfAttention.audio_gradient_scale` of some blocks, and 1 in all others; outputs do not change.

        Args:
            scales: block, or first and last block, -> scale, as in {"0": 0.0, "1-10": 0.1}.

        Raises:
            ValueError: see `block_scales`.
        """
        for block, scale in zip(self.blocks, block_scales(scales, len(self.blocks)), strict=True):
            block.get_submodule("self_attn").audio_gradient_scale = scale  # type: ignore[assignment]

    def compile_blocks(self, **options: Any) -> None:
        """Compile each block with `torch.compile(**options)`; tensor names stay, equal blocks share one compilation."""
        for block in self.blocks:
            block.compile(**options)

    def save_pretrained(
        self, folder: str | Path, dtype: torch.dtype | None = None, state: Mapping[str, Tensor] | None = None
    ) -> None:
        """Write `config.json` and `model.safetensors`.

        Args:
            folder: folder to write to.
            dtype: dtype of the stored copy; None keeps that of the weights.
            state: tensors to store in place of the module's own, which are incomplete in sharded training.
        """
        folder = Path(folder)
        tensors = self.state_dict() if state is None else state
        state = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in tensors.items()}
        with atomic_path(folder / WEIGHTS_NAME) as path:
            save_file(dict(state), path)
        atomic_write_text(folder / CONFIG_NAME, json.dumps(asdict(self.config), indent=2) + "\n")

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
    ) -> JointDiT:
        """Read a folder written by `save_pretrained`, tensor by tensor; `dtype` None keeps the stored dtype.

        Raises:
            ValueError: if `save_pretrained` did not write the folder, or its tensors do not match its configuration.
        """
        folder = Path(folder)
        if not (folder / CONFIG_NAME).is_file():
            raise ValueError(
                f"{folder} has no {CONFIG_NAME}: give a folder that save_pretrained wrote, or use load_javisdit or "
                "load_wan for checkpoints of the release or of Wan2.1."
            )
        model = cls.on_meta(JointDiTConfig.from_dict(json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))))
        fill_module(model, StateFiles(folder / WEIGHTS_NAME).tensors(dtype, device), str(folder))
        return model.eval()

    @classmethod
    def on_meta(cls, config: JointDiTConfig) -> JointDiT:
        """Build the network on the meta device, without memory for its weights; `fill_module` fills it."""
        with torch.device("meta"):
            return cls(config)

    def _check_inputs(self, video: Tensor | None, audio: Tensor | None) -> dict[str, Tensor]:
        given = {name: latent for name, latent in (("video", video), ("audio", audio)) if latent is not None}
        foreign = set(given) - set(self.config.modalities)
        if foreign or not given:
            raise ValueError(
                f"Latents were given for {sorted(given) or 'no modality'}, but the model has {self.config.modalities}: "
                "pass at least one modality, and None for each one that the model lacks."
            )
        for spec in self.config.specs:
            if spec.name in given and given[spec.name].shape[1] != spec.channels:
                raise ValueError(
                    f"The {spec.name} latents have {given[spec.name].shape[1]} channels, but the model expects "
                    f"{spec.channels}: another codec made them; encode the clips with this model's codec."
                )
        return given

    def _child(self, spec: ModalitySpec, name: str) -> nn.Module:
        return self.get_submodule(spec.prefix + name)

    def _embed(self, latent: Tensor, spec: ModalitySpec) -> Tensor:
        return self._child(spec, "patch_embedding")(latent.to(self.dtype)).flatten(2).transpose(1, 2)  # (B, N, D)

    def _modulation(self, prefix: str, time: Tensor) -> Tensor:
        """Map the time embedding, float32 (B, D), to the modulation (B, rows, D) in the dtype of the blocks."""
        rows = self.get_submodule(f"{prefix}time_projection")(time)
        return rows.unflatten(1, (-1, self.config.dim)).to(self.dtype)

    def _rotary(self, grids: dict[str, Any], num_frames: int | None, device: torch.device) -> tuple[Tensor, Tensor]:
        video_grid, audio_grid = grids.get("video"), grids.get("audio")
        if video_grid is None and num_frames is None:
            raise ValueError(
                "Audio was given without video, so its positions need the number of frames of the clip: give "
                "num_frames."
            )
        timeline = video_grid or (((num_frames or 1) - 1) // FRAMES_PER_STEP + 1, 0, 0)
        rule, head_dim = self.config.audio_positions, self.config.head_dim
        return rotary_table(rule, video_grid, audio_grid, timeline, head_dim, device)


class JointBlock(nn.Module):
    """One transformer block: shared self-attention, shared text attention, one feed-forward expert per modality."""

    def __init__(self, config: JointDiTConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.modulation = nn.Parameter(torch.empty(1, SHARED_ROWS, dim))
        self.self_attn = SelfAttention(dim, config.num_heads, config.qk_norm, config.eps)
        self.norm3 = nn.LayerNorm(dim, config.eps) if config.cross_attn_norm else nn.Identity()
        self.cross_attn = CrossAttention(dim, config.num_heads, config.qk_norm, config.eps)
        for prefix in config.experts:
            self.add_module(f"{prefix}ffn", feed_forward(dim, config.ffn_dim))
            if prefix:
                self.add_module(f"{prefix}modulation", Modulation(EXPERT_ROWS, dim))

    def forward(
        self,
        hidden: Tensor,
        rows: dict[str, Tensor],
        slices: dict[str, slice],
        rotary: tuple[Tensor, Tensor],
        context: Tensor,
    ) -> Tensor:
        """Map tokens (B, N, D) to (B, N, D).

        Args:
            hidden: video tokens followed by audio tokens.
            rows: expert prefix ("" is the block itself) -> time modulation (B, rows, D).
            slices: modality -> slice of its tokens along N.
            rotary: cosines and sines of the positions.
            context: text (B, L, D).
        """
        shift, scale, gate, *video_rows = (self.modulation + rows[""]).unsqueeze(2).unbind(1)  # 6 x (B, 1, D)
        num_video = slices["audio"].start if len(slices) > 1 else None
        attended = self.self_attn(modulate(self._norm(hidden), shift, scale), rotary, num_video)
        hidden = torch.addcmul(hidden, attended, gate)
        hidden = hidden + self.cross_attn(self.norm3(hidden), context)
        experts = []
        for spec in self.config.specs:
            if spec.name in slices:
                prefix = self.config.expert(spec)
                own_rows = self._own_rows(prefix, rows) if prefix else video_rows
                experts.append(self._feed_forward(prefix, hidden[:, slices[spec.name]], own_rows))
        return torch.cat(experts, dim=1) if len(experts) > 1 else experts[0]

    def _own_rows(self, prefix: str, rows: dict[str, Tensor]) -> list[Tensor]:
        offset: Tensor = self.get_submodule(f"{prefix}modulation").param  # type: ignore[assignment]
        return list((offset + rows[prefix]).unsqueeze(2).unbind(1))

    def _feed_forward(self, prefix: str, hidden: Tensor, rows: list[Tensor]) -> Tensor:
        shift, scale, gate = rows
        return torch.addcmul(
            hidden, self.get_submodule(f"{prefix}ffn")(modulate(self._norm(hidden), shift, scale)), gate
        )

    def _norm(self, hidden: Tensor) -> Tensor:
        return F.layer_norm(hidden, hidden.shape[-1:], eps=self.config.eps)


def init_weights(name: str, module: nn.Module) -> None:
    """Initialise one module as the release does: Xavier, small text and time embeddings, heads that predict zero.

    `name` is the module's full name in the network.
    """
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
        if name.endswith("head.head"):
            nn.init.zeros_(module.weight)
        elif name.startswith(("text_embedding.", "time_embedding.")):
            nn.init.normal_(module.weight, std=0.02)
        else:
            nn.init.xavier_uniform_(module.weight)
    elif isinstance(module, nn.Conv2d | nn.Conv3d):
        module.reset_parameters()
        nn.init.xavier_uniform_(module.weight.flatten(1))
    elif isinstance(module, Head | JointBlock):
        nn.init.normal_(module.modulation, std=module.modulation.shape[-1] ** -0.5)
    elif isinstance(module, Modulation):
        nn.init.normal_(module.param, std=module.param.shape[-1] ** -0.5)


def _grid(latent: Tensor, spec: ModalitySpec) -> tuple[int, ...]:
    sizes = latent.shape[2:]
    if len(sizes) != len(spec.patch) or any(size % patch for size, patch in zip(sizes, spec.patch, strict=True)):
        raise ValueError(
            f"The {spec.name} latents of size {tuple(sizes)} do not split into patches of {spec.patch}: use another "
            "clip size."
        )
    return tuple(size // patch for size, patch in zip(sizes, spec.patch, strict=True))


def _contiguous_slices(tokens: dict[str, Tensor]) -> dict[str, slice]:
    slices, start = {}, 0
    for name, tensor in tokens.items():
        slices[name] = slice(start, start + tensor.shape[1])
        start += tensor.shape[1]
    return slices


def _unpatchify(patches: Tensor, grid: tuple[int, ...], spec: ModalitySpec) -> Tensor:
    """Join patches (B, N, patch * C), channel last in each patch, to latents (B, C, *latent sizes)."""
    axes = len(grid)
    split = patches.unflatten(2, (*spec.patch, spec.channels)).unflatten(1, grid)
    order = [0, 2 * axes + 1]
    for axis in range(axes):
        order += [1 + axis, 1 + axes + axis]
    sizes = [size * patch for size, patch in zip(grid, spec.patch, strict=True)]
    return split.permute(order).reshape(patches.shape[0], spec.channels, *sizes)
