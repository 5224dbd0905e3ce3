"""Helpers that the codecs share: reading and writing of their networks, and the conversion of pixels to [-1, 1]."""

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
PIXEL_TOLERANCE = 1e-3  # allowed excess over [-1, 1]: rounding of a resize in low precision


def read_config(folder: str | Path) -> dict[str, Any]:
    """Read the `config.json` that diffusers or transformers wrote into a folder.

    Raises:
        ValueError: if the file is missing.
    """
    path = Path(folder) / CONFIG_NAME
    if not path.is_file():
        raise ValueError(f"{folder} has no {CONFIG_NAME}, so its network is unknown: fetch or copy the whole folder.")
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return config


def load_network(build: Callable[[], Network], tensors: Iterable[tuple[str, Tensor]], source: str) -> Network:
    """Return a frozen network that holds the given tensors; initial weights are never allocated.

    diffusers and transformers only warn about missing tensors and leave random numbers in their place.

    Args:
        build: function that constructs the network; called on the meta device.
        tensors: names and values of all tensors.
        source: name of the tensors' origin in error messages.

    Raises:
        ValueError: if the tensors do not fit the network.
    """
    with torch.device("meta"):
        network = build()
    fill_module(network, tensors, source)
    return network.eval().requires_grad_(False)


def save_network(network: ModelMixin | PreTrainedModel, folder: Path, dtype: torch.dtype | None) -> None:
    """Write config.json and safetensors, cast to `dtype`; None keeps the dtype of the network."""
    stored = nn.Module.to(deepcopy(network), dtype) if dtype else network
    stored.save_pretrained(folder)


def unit_pixels(video: Tensor) -> Tensor:
    """Convert pixels, uint8 or floats in [-1, 1], to float32 in [-1, 1].

    Raises:
        ValueError: for another type or range.
    """
    if video.dtype == torch.uint8:
        return video.float() / 127.5 - 1
    if not video.is_floating_point():
        raise ValueError(f"The pixels are {video.dtype}, of unknown range: give uint8, or floats from -1 to 1.")
    if video.abs().amax() > 1 + PIXEL_TOLERANCE:
        raise ValueError(
            f"The pixels are floats from {video.amin():g} to {video.amax():g}, but must run from -1 (black) to 1 "
            "(white): give pixels / 127.5 - 1, or uint8."
        )
    return video.float()
