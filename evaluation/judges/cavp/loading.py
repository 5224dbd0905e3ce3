"""Load and save CAVP: Diff-Foley's checkpoint, or a folder with weights and a `config.json` of sizes."""

from __future__ import annotations

import pickle
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from core.config_file import read_fields
from core.state_files import StateFiles, fill_module
from evaluation.judges.cavp.config import CavpConfig
from evaluation.judges.cavp.network import Cavp
from rewards.weights import CONFIG_NAME, save_weights

CHECKPOINT_SUFFIX = ".ckpt"
WRAPPER = "module."  # before each name, where a distributed training wrote the checkpoint


def load_network(path: Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Cavp:
    """Return the network of a checkpoint; other content that a training left there is skipped.

    Args:
        path: `cavp_epoch66.ckpt`, another file of weights, or a folder with some and, where sizes are not the
            published ones, `config.json`.

    Raises:
        ValueError: the file cannot be read without running code, or is not of this network.
    """
    config = read_fields((path if path.is_dir() else path.parent) / CONFIG_NAME, CavpConfig())
    with torch.device("meta"):
        network = Cavp(config)
    parts = ("logit_scale", *(f"{name}." for name, _ in network.named_children()))
    named, names = _read(path)
    ours = ((name, tensor) for name, tensor in _unwrapped(named) if name.startswith(parts))
    fill_module(network, ((name, _placed(tensor, device, dtype)) for name, tensor in ours), str(path), names)
    return network


def save_network(network: Cavp, folder: Path) -> None:
    """Writes `model.safetensors`, and `config.json` with all sizes: what `load_network` reads."""
    save_weights(folder, network.config, network.state_dict())


def _read(path: Path) -> tuple[Iterable[tuple[str, Tensor]], Collection[str]]:
    """The tensors of a file or folder with their names, and all names."""
    if path.suffix == CHECKPOINT_SUFFIX:
        state = _read_checkpoint(path)
        return state.items(), state.keys()
    files = StateFiles(path)
    return files.tensors(), files.shapes.keys()


def _read_checkpoint(file: Path) -> Mapping[str, Tensor]:
    """The tensors of a training's checkpoint, read by torch's restricted unpickler alone."""
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{file} was not opened: it is damaged, or holds Python objects beside its tensors, which could run code "
            "when read. Fetch it again from its publisher; if that does not help, save its state_dict as safetensors "
            "where you trust it."
        ) from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError(f"{file} holds no state_dict of named tensors, so it is no checkpoint that can be read here.")
    return state


def _unwrapped(tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    yield from ((name.removeprefix(WRAPPER), tensor) for name, tensor in tensors)


def _placed(tensor: Tensor, device: str, dtype: torch.dtype) -> Tensor:
    wanted = dtype if tensor.is_floating_point() else tensor.dtype
    return tensor.to(device=device, dtype=wanted, copy=True)  # not a view of the mapped file
