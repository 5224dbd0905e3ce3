"""Weights made from names and shapes alone, so that a full-size network can be checked without its checkpoint.

The rule is that of the golden files in `synchformer_imagebind/` and `videoalign_audiobox/`, whose metadata hold the
seed. `procedural_probe.json` holds numbers to check the rule by.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from core.state_files import fill_module

TOKENS = frozenset({"cls_token", "distillation_token", "OFF_tok", "MOD_tok"})
TABLES = frozenset({"position_embeddings", "pos_embed", "temp_embed", "pos_emb"})
NOT_FILLED = frozenset({"modality_preprocessors.text.mask"})  # ImageBind's causal mask is no weight


def procedural_tensor(name: str, shape: Sequence[int], seed: int) -> Tensor:
    """The float32 tensor of this name and shape on the CPU; it depends on nothing else."""
    noise = torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed + zlib.crc32(name.encode())))
    if name.split(".")[-1] in TOKENS | TABLES:
        return noise.mul_(0.02)
    if noise.ndim == 0:
        return noise.mul_(0.5).add_(2.0)
    if noise.ndim == 1:
        return noise.mul_(0.05).add_(1.0) if name.endswith("weight") else noise.mul_(0.02)
    return noise.div_((noise.numel() / noise.shape[0]) ** 0.5)


def fill(module: nn.Module, seed: int, keep: Collection[str] = NOT_FILLED) -> nn.Module:
    """Gives every entry of the state dict its procedural tensor; `module` may be on the meta device but for `keep`."""
    state = module.state_dict()
    tensors = (
        (name, state[name] if name in keep else procedural_tensor(name, state[name].shape, seed)) for name in state
    )
    fill_module(module, tensors, "procedural weights")
    return module
