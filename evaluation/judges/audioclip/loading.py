"""Load and save AudioCLIP's audio head; the other two towers of a checkpoint are not read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from core.checkpoint_kinds import looks_like
from core.config_file import read_fields
from core.state_files import StateFiles, fill_module
from evaluation.judges.audioclip.config import AudioClipConfig
from evaluation.judges.audioclip.network import AudioHead
from rewards.weights import CONFIG_NAME, save_weights

PREFIX = "audio."  # of the names in it
_FRONT_END = ("window", "fbsp.")  # stay in float32
_EMPTY = "fbsp.bias"  # the filters have none, for which the published class keeps a tensor without elements


def load_network(path: Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> AudioHead:
    """Load AudioCLIP-Full-Training.pt, or a folder with such a checkpoint; `config.json` beside it gives other sizes.

    Raises:
        ValueError: there are no weights, or not those of an AudioCLIP of these sizes.
    """
    config = read_fields((path if path.is_dir() else path.parent) / CONFIG_NAME, AudioClipConfig())
    files = StateFiles(path)
    if not any(name.startswith(PREFIX) for name in files.shapes):
        raise ValueError(
            f"{path} has no tensor whose name begins with {PREFIX!r}, so it holds no AudioCLIP with its audio head. "
            f"It looks like {looks_like(files.shapes)}; fetch AudioCLIP-Full-Training.pt."
        )
    with torch.device("meta"):
        network = AudioHead(config)
    fill_module(network, _audio_tensors(files, device, dtype), str(path), files.shapes)
    return network.eval().requires_grad_(False)


def save_network(network: AudioHead, folder: Path) -> None:
    """Writes `model.safetensors` under published names, and `config.json`: what `load_network` reads."""
    save_weights(folder, network.config, published_state(network))


def published_state(network: AudioHead) -> dict[str, Tensor]:
    """The network's tensors under their published names."""
    return {PREFIX + name: tensor for name, tensor in network.state_dict().items()}


def _audio_tensors(files: StateFiles, device: str, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    for published, tensor in files.tensors(device="cpu"):
        name = published.removeprefix(PREFIX)
        if name == published or (name == _EMPTY and tensor.numel() == 0):
            continue
        wanted = torch.float32 if name.startswith(_FRONT_END) else dtype
        yield name, tensor.to(device, wanted if tensor.is_floating_point() else tensor.dtype)
