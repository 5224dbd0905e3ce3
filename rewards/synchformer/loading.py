"""A Synchformer on disk: the published state dict, or a folder with weights and the sizes that differ."""

import dataclasses
import difflib
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from media.atomic import atomic_path, atomic_write_text
from media.state_files import StateFiles, fill_module
from rewards.synchformer.config import SynchformerConfig
from rewards.synchformer.network import Synchformer
from rewards.weights import CONFIG_NAME

WEIGHTS_NAME = "model.safetensors"


def load_network(path: Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Synchformer:
    """The network in a weights file or its folder; `config.json` beside the weights holds sizes that differ.

    Raises:
        ValueError: the weights do not belong to a Synchformer of these sizes, or `config.json` is no such file.
    """
    config = read_config((path if path.is_dir() else path.parent) / CONFIG_NAME)
    with torch.device("meta"):
        network = Synchformer(config)
    fill_module(network, StateFiles(path).tensors(dtype, device), str(path))
    return network


def save_network(network: Synchformer, folder: Path) -> None:
    """Writes `model.safetensors`, and in `config.json` the sizes that differ from the published ones."""
    folder.mkdir(parents=True, exist_ok=True)
    published = SynchformerConfig()
    differing = {
        name: value for name, value in dataclasses.asdict(network.config).items() if value != getattr(published, name)
    }
    with atomic_path(folder / WEIGHTS_NAME) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, temporary)
    atomic_write_text(folder / CONFIG_NAME, json.dumps(differing, indent=2) + "\n")


def read_config(path: Path) -> SynchformerConfig:
    """The published sizes, but for those that the file names; all published where there is no such file."""
    if not path.is_file():
        return SynchformerConfig()
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON file ({error}). Write it again, or remove it.") from error
    fields = {field.name: type(field.default) for field in dataclasses.fields(SynchformerConfig)}
    for name, value in values.items():
        if name not in fields:
            close = difflib.get_close_matches(name, fields, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"those of a Synchformer are {', '.join(fields)}."
            raise ValueError(
                f"{path} has the key {name!r}, which is no size of a Synchformer; {hint} If the file belongs to "
                "another model, move the weights to a folder of their own."
            )
        if not (type(value) is fields[name] or (fields[name] is float and type(value) is int)):
            raise ValueError(f"{path} says {name}={value!r}, but it must be {fields[name].__name__}. Correct it.")
    return SynchformerConfig(**values)


def float_dtype(name: str) -> torch.dtype:
    """torch.bfloat16 for "bfloat16", and so on."""
    dtype = getattr(torch, name, None)
    if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(f"dtype={name!r} is no float type of torch. Give 'float32', 'bfloat16' or 'float16'.")
    return dtype
