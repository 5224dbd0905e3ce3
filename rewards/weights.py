"""Weights of judges on disk: find them, identify their content, name their type, and save a small network."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from core.atomic import atomic_path, atomic_write_text
from core.file_identity import files_identity, visible_files
from rewards.registry import BUILTIN_JUDGES

if TYPE_CHECKING:
    import torch
    from _typeshed import DataclassInstance
    from torch import Tensor

    from rewards.base import Judge

PRESETS = Path(__file__).parent / "presets"
CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"


def find_weights(path: str | None, judge: str, *published: str) -> Path:
    """Return the file or folder that a judge loads.

    Args:
        path: the file or folder itself, a folder that holds it under a published name, or the name of a preset.
        judge: name of the judge; for a built-in one also the name of its component in `model.fetch`.
        published: file or folder names as published, e.g. "imagebind_huge.pth".

    Raises:
        ValueError: no path was given, or nothing is there.
    """
    if path is None:
        raise ValueError(f"The judge {judge!r} needs weights. {_advice(judge, *published)}")
    if found := weights_in(path, judge, *published):
        return found
    if Path(path).exists():
        return Path(path)
    raise ValueError(
        f"The weights {path!r} of the judge {judge!r} do not exist: there is no such file, folder or preset. "
        f"{_advice(judge, *published)}"
    )


def weights_in(folder: str, judge: str, *published: str) -> Path | None:
    """Return a judge's weights in a preset or folder: under a published name or its own name; None without any."""
    candidates = (PRESETS / folder / judge, *(Path(folder) / name for name in (*published, judge)))
    return next((path for path in candidates if path.exists()), None)


def weights_identity(judge: type[Judge], found: Path) -> str:
    """Return 12 hex digits that change when the weights, or files beside them that change a value, do."""
    files = [file for path in (found, *judge.companions(found)) for file in visible_files(path)]
    return files_identity(files, found)


def float_dtype(name: str) -> torch.dtype:
    """Return the torch type of a name, such as torch.bfloat16 for "bfloat16".

    Raises:
        ValueError: torch has no floating type of this name.
    """
    import torch  # late: finding weights does not need it

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


def _advice(judge: str, *published: str) -> str:
    names = " or ".join(map(repr, published))
    if judge not in BUILTIN_JUDGES:
        return f"Give its file or folder itself, or the folder that holds it as {names}."
    command = f"`python -m model.fetch --components {judge} --output weights --accept_licences`"
    preset = ", or 'tiny' for the preset that was trained on Bounce" if (PRESETS / "tiny" / judge).is_dir() else ""
    return f"Give {names}, the folder that {command} fetched them to{preset}."
