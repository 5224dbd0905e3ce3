"""Loading of the network in a checkout of the published repository, without its CUDA-only and distributed packages.

Only the file that defines the network is executed; its imports from other files are replaced by small stand-ins, and
flash-attention by torch's fused kernel. It needs `einops` and `diffusers`.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from model.javisdit.network.transformer import JointDiT

NETWORK = Path("javisdit/models/wan/modules/model.py")


class UpstreamModel(torch.nn.Module):
    """The published network with this project's weights and the interface of this project's network."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network.requires_grad_(True)

    def forward(
        self, video: Tensor, audio: Tensor, timestep: Tensor, text: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        # The network empties the dictionary and overwrites text and mask, so each call gets copies. Its velocity is
        # data - noise, the opposite sign.
        output = self.network({"video": video, "audio": audio}, timestep, text.clone(), mask=mask.clone())
        return -output["video"], -output["audio"]


def load_upstream(checkout: Path, model: JointDiT) -> UpstreamModel:
    """Load the network of the checkout at the size of `model`, with a copy of its weights."""
    path = checkout / NETWORK
    if not path.is_file():
        sys.exit(f"{path} does not exist: give --upstream a checkout of the published repository.")
    if importlib.util.find_spec("einops") is None:
        sys.exit("einops is not installed, but the published network needs it: pip install einops")
    definition = _execute(path)
    settings = model.config.to_published()
    network = definition.WanModel(**settings, class_drop_prob=0.0)
    network.load_state_dict(model.state_dict(), strict=True)
    return UpstreamModel(network.eval())


def _execute(path: Path) -> ModuleType:
    """Execute the file as the module `upstream.model`, with stand-ins for its relative and absolute imports."""
    attention = {"flash_attention": _fused_attention, "attnetion_with_mask": None, "flash_attention_varlen": None}
    _stand_in("upstream", __path__=[])
    _stand_in("upstream.attention", **attention)
    for package in ("javisdit", "javisdit.utils", "javisdit.acceleration", "javisdit.models", "javisdit.models.layers"):
        _stand_in(package, __path__=[])
    _stand_in("javisdit.utils.misc", get_logger=logging.getLogger, requires_grad=_requires_grad)
    _stand_in("javisdit.utils.ckpt_utils", load_checkpoint=None)
    _stand_in("javisdit.acceleration.checkpoint", auto_grad_checkpoint=checkpoint)
    _stand_in("javisdit.models.layers.blocks", CaptionEmbedder=None, approx_gelu=None)
    spec = importlib.util.spec_from_file_location("upstream.model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _stand_in(name: str, **attributes: Any) -> None:
    module = ModuleType(name)
    vars(module).update(attributes)
    sys.modules[name] = module


def _requires_grad(module: torch.nn.Module, flag: bool) -> None:
    module.requires_grad_(flag)


def _fused_attention(q: Tensor, k: Tensor, v: Tensor, **_: Any) -> Tensor:
    """Attend with torch's fused kernel; all tensors are (B, L, heads, head_dim), and all positions are valid."""
    query, key, value = (tensor.transpose(1, 2) for tensor in (q, k, v))
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2)
