"""Read and write checkpoints of AudioBox-Aesthetics in the published layout. No pickle is executed."""

from __future__ import annotations

import dataclasses
import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.config_file import read_fields, with_fields
from core.state_files import StateFiles, fill_module, misfit_error
from rewards.audiobox.config import AudioBoxConfig
from rewards.audiobox.network import AestheticsNetwork
from rewards.weights import CONFIG_NAME, WEIGHTS_NAME, save_weights

TORCH_NAME = "checkpoint.pt"
TORCH_PREFIX = "model."  # of the names in it

# Ours begins with transformers' names (docs/upstream/audiobox.md, section 7). (pattern in ours, replacement in the
# published).
_RENAMES = (
    (r"^wavlm\.", "wavlm_model."),
    (r"\.masked_spec_embed$", ".mask_emb"),
    (r"(\.conv_layers\.\d+)\.conv\.", r"\1.0."),
    (r"(\.conv_layers\.\d+)\.layer_norm\.", r"\1.2."),
    (r"\.feature_projection\.layer_norm\.", ".layer_norm."),
    (r"\.feature_projection\.projection\.", ".post_extract_proj."),
    (r"\.pos_conv_embed\.conv\.parametrizations\.weight\.original0$", ".pos_conv.0.weight_g"),
    (r"\.pos_conv_embed\.conv\.parametrizations\.weight\.original1$", ".pos_conv.0.weight_v"),
    (r"\.pos_conv_embed\.conv\.", ".pos_conv.0."),
    (r"(\.layers\.\d+)\.layer_norm\.", r"\1.self_attn_layer_norm."),
    (r"\.attention\.rel_attn_embed\.", ".self_attn.relative_attention_bias."),
    (r"\.attention\.gru_rel_pos_linear\.", ".self_attn.grep_linear."),
    (r"\.attention\.gru_rel_pos_const$", ".self_attn.grep_a"),
    (r"\.attention\.", ".self_attn."),
    (r"\.feed_forward\.intermediate_dense\.", ".fc1."),
    (r"\.feed_forward\.output_dense\.", ".fc2."),
)

# The waveform and the levels that the first normalisation removes need float32, and so do scores that are to differ.
_ALWAYS_FLOAT32 = ("wavlm.feature_extractor.conv_layers.0.", "proj_layer.", "layer_weights.")


def load_network(path: Path, dtype: torch.dtype = torch.float32) -> AestheticsNetwork:
    """The network of a checkpoint, on the CPU.

    Args:
        path: a folder with `model.safetensors` or `checkpoint.pt`, or such a file. The configuration is in the
            `config.json` beside `model.safetensors`, or in `checkpoint.pt` itself; without it, it is as published.
        dtype: of the encoder; its first convolution and the heads stay float32.

    Raises:
        ValueError: there is no such file, it cannot be read without running code, or it is not of this network.
    """
    file = _find_file(path)
    stored: StateFiles | Mapping[str, Tensor]
    if (content := _read_torch(file)) is not None:
        config, stored = _torch_config(content, file), _torch_state(content, file)
        shapes = {name: tuple(tensor.shape) for name, tensor in stored.items()}
    else:
        config = read_fields(file.with_name(CONFIG_NAME), AudioBoxConfig())
        stored = StateFiles(file)
        shapes = stored.shapes
    with torch.device("meta"):
        network = AestheticsNetwork(config)
    ours = {published_name(name): name for name in network.state_dict()}
    wanted = {published_name(name): tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    if error := misfit_error(wanted, shapes, str(file), "AudioBox-Aesthetics", shapes):
        raise error  # before any data is read, and in the names of the file
    tensors = stored.tensors() if isinstance(stored, StateFiles) else _copies(stored)
    fill_module(network, _cast(((ours[name], tensor) for name, tensor in tensors), dtype), str(file))
    return network.eval()


def save_network(network: AestheticsNetwork, folder: Path) -> None:
    """Write a network in the published layout: `config.json` and `model.safetensors`, float32 under published names."""
    save_weights(folder, network.config, published_state(network))


def published_state(network: AestheticsNetwork) -> dict[str, Tensor]:
    """The network's tensors under their published names: copies, float32 on the CPU."""
    state = network.state_dict()
    return {published_name(name): t.detach().to("cpu", torch.float32, copy=True) for name, t in state.items()}


def published_name(name: str) -> str:
    """The name in the published files of one of the network's own tensors."""
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _find_file(path: Path) -> Path:
    if path.is_file():
        return path
    for name in (WEIGHTS_NAME, TORCH_NAME):
        if (path / name).is_file():
            return path / name
    raise ValueError(f"{path} holds neither {WEIGHTS_NAME} nor {TORCH_NAME}: give the folder or file that does.")


def _read_torch(file: Path) -> dict[str, Any] | None:
    """Return the content of a `checkpoint.pt` in the published form; None for another kind of file."""
    if file.suffix == ".safetensors":
        return None
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{file} was not opened: it is damaged, or holds Python objects beside its tensors, which could run code "
            f"when read. Take {WEIGHTS_NAME} and {CONFIG_NAME} of the same repository instead: "
            "python -m model.fetch --components audiobox --output weights --accept_licences"
        ) from error
    return content if isinstance(content, dict) and isinstance(content.get("state_dict"), dict) else None


def _torch_config(content: dict[str, Any], file: Path) -> AudioBoxConfig:
    """Return the config in `model_cfg`, which holds settings of the training too, and `target_transform`."""
    settings = content.get("model_cfg")
    if not isinstance(settings, dict):
        raise ValueError(f"{file} has no table model_cfg, so that its network is unknown: take {WEIGHTS_NAME}.")
    known = {entry.name for entry in dataclasses.fields(AudioBoxConfig)}
    fields = {key: value for key, value in settings.items() if key in known}
    if "target_transform" in content:
        fields["target_transform"] = content["target_transform"]
    return with_fields(AudioBoxConfig(), fields, f"{file}: model_cfg")


def _torch_state(content: dict[str, Any], file: Path) -> dict[str, Tensor]:
    state = content["state_dict"]
    if not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError(f"state_dict in {file} holds more than tensors, so it is no checkpoint that can be read here.")
    return {name.removeprefix(TORCH_PREFIX): tensor for name, tensor in state.items()}


def _cast(tensors: Iterator[tuple[str, Tensor]], encoder_dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in tensors:
        yield name, tensor.to(torch.float32 if name.startswith(_ALWAYS_FLOAT32) else encoder_dtype)


def _copies(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Copy tensors out of a mapped file, so that the network does not depend on it."""
    yield from ((name, tensor.clone()) for name, tensor in state.items())
