"""What codecs share: their networks from and to disk, the range of their pixels."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.state_files import fill_module
from model.javisdit.network.config import CONFIG_NAME

Network = TypeVar("Network", bound=nn.Module)
PIXEL_TOLERANCE = 1e-3  # beyond [-1, 1], for what resizing in low precision adds


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


def unit_pixels(video: Tensor) -> Tensor:
    """uint8, or floats in [-1, 1] already, to float32 in [-1, 1].

    Raises:
        ValueError: for another type or range.
    """
    if video.dtype == torch.uint8:
        return video.float() / 127.5 - 1
    if not video.is_floating_point():
        raise ValueError(f"The pixels are {video.dtype}, of unknown range: give uint8, or floats from -1 to 1.")
    if video.abs().amax() > 1 + PIXEL_TOLERANCE:
        raise ValueError(
            f"The pixels are floats from {video.amin():g} to {video.amax():g}, but black is -1 and white is 1: "
            "give pixels / 127.5 - 1, or the bytes as uint8."
        )
    return video.float()
