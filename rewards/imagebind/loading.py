"""Load and save ImageBind: weights, the tokenizer beside them, and a `config.json` of other sizes."""

from __future__ import annotations

from pathlib import Path

import torch

from core.config_file import read_fields
from core.state_files import StateFiles, fill_module
from rewards.base import Protocol
from rewards.imagebind.config import MODALITIES, ImageBindConfig, Modality
from rewards.imagebind.encoder import ImageBindEncoder
from rewards.imagebind.network import ImageBind
from rewards.imagebind.tokenizer import load_tokenizer
from rewards.weights import CONFIG_NAME, save_weights

USED: tuple[Modality, ...] = ("vision", "text", "audio")
PARTS = ("preprocessors", "trunks", "heads", "postprocessors")


def load_encoder(
    path: Path, device: str = "cpu", dtype: torch.dtype = torch.float32, protocol: Protocol = "correct"
) -> ImageBindEncoder:
    """Return the text, vision and audio parts of a checkpoint; tensors of its other modalities are skipped.

    Args:
        path: the weights, or a folder that holds them; beside them the tokenizer, and `config.json` where sizes are
            not the published ones.

    Raises:
        ValueError: weights or tokenizer are missing, or do not fit each other.
    """
    folder = path if path.is_dir() else path.parent
    config = read_fields(folder / CONFIG_NAME, ImageBindConfig())
    tokenizer = load_tokenizer(folder, config.text.context_length)
    with torch.device("meta"):
        network = ImageBind(config, USED)
    _fill(network, path, device, dtype)
    return ImageBindEncoder(network, tokenizer, protocol)


def save_encoder(encoder: ImageBindEncoder, folder: Path) -> None:
    """Writes `model.safetensors`, `config.json` with all sizes, and the tokenizer: what `load_encoder` reads."""
    save_weights(folder, encoder.network.config, encoder.network.state_dict())
    encoder.tokenizer.save(folder)


def _fill(network: ImageBind, path: Path, device: str, dtype: torch.dtype) -> None:
    files = StateFiles(path)
    unused = [name for name in MODALITIES if name not in USED]
    passed_over = tuple(f"modality_{part}.{name}." for part in PARTS for name in unused)
    tensors = ((name, tensor) for name, tensor in files.tensors(dtype, device) if not name.startswith(passed_over))
    fill_module(network, tensors, str(path), files.shapes)
