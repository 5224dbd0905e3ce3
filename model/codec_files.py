"""The networks of a codec from and to disk."""

import json
from collections.abc import Callable, Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from transformers import PreTrainedModel

from model.config import CONFIG_NAME
from model.state_files import fill_module

Network = TypeVar("Network", bound=nn.Module)


def read_config(folder: str | Path) -> dict[str, Any]:
    """The `config.json` of diffusers or transformers in a folder.

    Raises:
        ValueError: when there is none.
    """
    path = Path(folder) / CONFIG_NAME
    if not path.is_file():
        raise ValueError(f"{folder} has no {CONFIG_NAME}, so its network is unknown: fetch or copy the whole folder.")
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return config


def load_network(build: Callable[[], Network], tensors: Iterable[tuple[str, Tensor]], source: str) -> Network:
    """A frozen network with these tensors, without ever holding initial weights.

    diffusers and transformers only warn about tensors that are missing, and leave random numbers in their place.

    Raises:
        ValueError: when the tensors do not fit; it calls them `source`.
    """
    with torch.device("meta"):
        network = build()
    fill_module(network, tensors, source)
    return network.eval().requires_grad_(False)


def save_network(network: ModelMixin | PreTrainedModel, folder: Path, dtype: torch.dtype | None) -> None:
    """Writes config.json and safetensors, in `dtype` or, where None, as the network is."""
    stored = nn.Module.to(deepcopy(network), dtype) if dtype else network
    stored.save_pretrained(folder)
