"""Weights of rewards on disk: where they are found, in what type they are loaded, and how a small network is saved."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from core.atomic import atomic_path, atomic_write_text
from rewards.registry import BUILTIN_REWARDS

if TYPE_CHECKING:
    import torch
    from _typeshed import DataclassInstance
    from torch import Tensor

PRESETS = Path(__file__).parent / "presets"
CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"


def find_weights(path: str | None, reward: str, published: str) -> Path:
    """The file or folder that a reward loads.

    Args:
        path: the file or folder itself, a folder that holds it under its published name, or the name of a preset.
        reward: name of the reward; that of a built-in one is its component's name in `model.fetch` too.
        published: file or folder name as published, e.g. "imagebind_huge.pth".

    Raises:
        ValueError: no path was given, or nothing is there.
    """
    if path is None:
        raise ValueError(f"The reward {reward!r} needs weights. {_advice(reward, published)}")
    if (preset := PRESETS / path / reward).is_dir():
        return preset
    for found in (Path(path) / published, Path(path) / reward, Path(path)):
        if found.exists():
            return found
    raise ValueError(
        f"The weights {path!r} of the reward {reward!r} do not exist: there is no such file, folder or preset. "
        f"{_advice(reward, published)}"
    )


def float_dtype(name: str) -> torch.dtype:
    """torch.bfloat16 for "bfloat16", and so on.

    Raises:
        ValueError: torch has no floating type of this name.
    """
    import torch  # late: finding weights needs none

    dtype = getattr(torch, name, None)
    if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(f"dtype is {name!r}: give a floating type such as 'float32' or 'bfloat16'.")
    return dtype


def save_weights(folder: Path, config: DataclassInstance, state: Mapping[str, Tensor]) -> None:
    """Write `model.safetensors`, and all fields of the network's configuration as `config.json`."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    atomic_write_text(folder / CONFIG_NAME, json.dumps(dataclasses.asdict(config), indent=2) + "\n")
    with atomic_path(folder / WEIGHTS_NAME) as path:
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)


def _advice(reward: str, published: str) -> str:
    if reward not in BUILTIN_REWARDS:
        return f"Give its file or folder itself, or the folder that holds it as {published!r}."
    return (
        f"Give the folder that `python -m model.fetch --components {reward} --output weights --accept_licences` "
        "fetched them to, or 'tiny' for the preset that was trained on Bounce."
    )
