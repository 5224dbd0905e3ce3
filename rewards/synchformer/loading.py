"""Load and save a Synchformer: the published state dict, or a folder with weights and a `config.json` of sizes."""

from __future__ import annotations

from pathlib import Path

import torch

from core.config_file import read_fields
from core.state_files import StateFiles, fill_module
from rewards.synchformer.config import SynchformerConfig
from rewards.synchformer.network import Synchformer
from rewards.weights import CONFIG_NAME, save_weights


def load_network(path: Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Synchformer:
    """The network in a weights file or its folder; `config.json` beside the weights holds sizes that differ.

    Raises:
        ValueError: the weights do not belong to a Synchformer of these sizes, or `config.json` is no such file.
    """
    config = read_fields((path if path.is_dir() else path.parent) / CONFIG_NAME, SynchformerConfig())
    with torch.device("meta"):
        network = Synchformer(config)
    fill_module(network, StateFiles(path).tensors(dtype, device), str(path))
    return network


def save_network(network: Synchformer, folder: Path) -> None:
    """Writes `model.safetensors`, and `config.json` with all sizes: what `load_network` reads."""
    save_weights(folder, network.config, network.state_dict())
