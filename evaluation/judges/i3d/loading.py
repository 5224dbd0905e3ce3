"""Load I3D from the published state dict, a TorchScript file, or a folder with weights and a `config.json`."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from core.config_file import read_fields
from core.state_files import StateFiles, fill_module
from evaluation.judges.i3d.config import NUM_CLASSES, I3DConfig
from evaluation.judges.i3d.network import I3D
from rewards.weights import CONFIG_NAME, save_weights

STATE_DICT_NAME = "i3d_pretrained_400.pt"
TORCHSCRIPT_NAME = "i3d_torchscript.pt"
# Arguments of the published TorchScript file besides the videos, which have the right size and lie in [-1, 1]: the
# logits are needed, not the probabilities.
_SCRIPT_SWITCHES = {"rescale": False, "resize": False, "return_features": True}


class ScriptedI3D(nn.Module):
    """A TorchScript file of I3D, such as StyleGAN-V's, with the call signature of `I3D`."""

    def __init__(self, script: torch.jit.ScriptModule, source: str) -> None:
        super().__init__()
        self.config = I3DConfig()
        self.script = script
        self.source = source
        schema = script.forward.schema  # type: ignore[attr-defined]  # a ScriptMethod, which torch types as any function
        known = {argument.name for argument in schema.arguments}
        self.switches = {name: value for name, value in _SCRIPT_SWITCHES.items() if name in known}

    def forward(self, video: Tensor) -> Tensor:
        logits = self.script(video, **self.switches)
        if not isinstance(logits, Tensor) or logits.shape != (len(video), NUM_CLASSES):
            given = f"a tensor {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
            raise ValueError(
                f"{self.source} gave {given} for {len(video)} videos, not {NUM_CLASSES} logits each: it is no I3D of "
                f"Kinetics-400. Give {STATE_DICT_NAME} or {TORCHSCRIPT_NAME} as published."
            )
        return logits


def load_network(path: Path, device: str = "cpu") -> I3D | ScriptedI3D:
    """The float32 network in a file or folder; `config.json` beside a state dict holds sizes that differ.

    Raises:
        ValueError: the tensors are not those of an I3D of these sizes (missing and surplus ones are named), or
            `config.json` is no such file.
    """
    if _is_torchscript(path):
        return ScriptedI3D(torch.jit.load(path, map_location=device).float(), str(path))
    config = read_fields((path if path.is_dir() else path.parent) / CONFIG_NAME, I3DConfig())
    with torch.device("meta"):
        network = I3D(config)
    fill_module(network, _tensors(StateFiles(path), network, device), str(path))
    return network


def save_network(network: I3D, folder: Path) -> None:
    """Writes `model.safetensors`, and `config.json` with all sizes: what `load_network` reads."""
    save_weights(folder, network.config, network.state_dict())


def _tensors(files: StateFiles, network: I3D, device: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in the files, and zero for missing counters of batches, which serve training only."""
    yield from files.tensors(torch.float32, device)
    for name in network.state_dict().keys() - files.shapes.keys():
        if name.endswith(".num_batches_tracked"):
            yield name, torch.zeros((), dtype=torch.int64, device=device)


def _is_torchscript(path: Path) -> bool:
    """Return whether a file holds a program beside its tensors."""
    if not (path.is_file() and zipfile.is_zipfile(path)):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())
