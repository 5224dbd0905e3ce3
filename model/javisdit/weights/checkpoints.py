"""Reading and writing of published checkpoints: JavisDiT-v1.0 folders and Wan2.1 transformers.

A JavisDiT folder contains `model/` (shards with the tensor names of `JointDiT`) and, if it was trained with LoRA,
`lora/` in peft layout. The release does not merge on saving, so `model/` then also contains copies of the adapter's
tensors.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.atomic import atomic_write_text
from core.checkpoint_kinds import looks_like
from core.state_files import SHARD_BYTES, StateFiles, fill_module, write_shards
from model.javisdit.network.config import CONFIG_NAME, SIZES, JointDiTConfig
from model.javisdit.network.transformer import JointDiT, init_weights
from model.javisdit.weights.tensor_names import from_wan_diffusers, infer_sizes, is_lora, is_wan_diffusers
from model.lora import ADAPTER_CONFIG_NAME, merge_lora

MODEL_FOLDER, LORA_FOLDER = "model", "lora"
DIFFUSERS_FOLDER = "transformer"
PUBLISHED_HEAD_DIM = 128  # in every published size; cannot be inferred from tensor shapes


def from_published(state_dict: dict[str, Tensor], config: dict[str, Any]) -> JointDiT:
    """Build the network from a state dict with the release's names; tensors are copied and keep their dtype.

    Args:
        state_dict: all tensors of the network.
        config: the `model` section of the release's config (`model_type`, `dim`, `dual_ffn`, `audio_pe_type`, ...).

    Raises:
        ValueError: for settings of another network, or tensors that do not fit.
    """
    model = JointDiT.on_meta(JointDiTConfig.from_published(config))
    fill_module(model, ((name, tensor.detach().clone()) for name, tensor in state_dict.items()), "The state dict")
    return model.eval()


def load_javisdit(
    folder: str | Path,
    config: JointDiTConfig | None = None,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    with_lora: bool = True,
) -> JointDiT:
    """Load a JavisDiT-v1.0 folder and merge its LoRA adapter, as the release's inference does.

    Args:
        folder: folder with `model/` and, for an adapter, `lora/`; or the `model/` folder itself.
        config: configuration of the network. If None, it is read from `model/config.json`, or, without that file,
            inferred from the tensors; audio positions, eps and text length cannot be inferred and get the published
            values.
        dtype: dtype of the weights; None keeps the stored dtype.
        device: device of the weights.
        with_lora: False ignores the adapter, to continue training from the base or to attach the adapter with peft.

    Raises:
        ValueError: if the tensors do not fit, or there are LoRA tensors without the adapter config that gives their
            scale.
    """
    folder = Path(folder)
    weights = _weights_folder(folder)
    adapter = folder / LORA_FOLDER
    files = StateFiles(weights)
    has_adapter = (adapter / ADAPTER_CONFIG_NAME).is_file()
    if with_lora and not has_adapter and any(map(is_lora, files.shapes)):
        raise ValueError(
            f"{weights} contains LoRA tensors, but {adapter / ADAPTER_CONFIG_NAME}, which gives their scale, is "
            f"missing: copy the {LORA_FOLDER}/ folder beside {MODEL_FOLDER}/, or pass with_lora=False to use the base "
            "weights."
        )
    model = JointDiT.on_meta(config or _read_config(weights, files))
    tensors = files.tensors(dtype, device)
    fill_module(model, ((name, tensor) for name, tensor in tensors if not is_lora(name)), str(weights))
    if with_lora and has_adapter:
        merge_lora(model, adapter)
    return model.eval()


def load_wan(
    path: str | Path,
    config: JointDiTConfig = SIZES["javisdit_pp"],
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> JointDiT:
    """Load a Wan2.1 text-to-video transformer as the video part of a joint network, and initialise the audio part.

    Follows stage 1 of the release: each audio expert is a copy of the video expert, with the rows of modulation that
    act on it; the audio patch embedding is new (drawn from `seed`), and the audio head starts at zero.

    Args:
        path: file or folder in the original or the Diffusers naming, or the root of a Diffusers pipeline.
        config: sizes of the joint network.
        dtype: dtype of all weights; stored files may mix several.
        device: device of the weights.
        seed: seed of the new weights.

    Raises:
        ValueError: if the tensors are not a Wan2.1 transformer of the sizes in `config`.
    """
    path = Path(path)
    files = StateFiles(path / DIFFUSERS_FOLDER if (path / DIFFUSERS_FOLDER).is_dir() else path)
    rename = from_wan_diffusers if is_wan_diffusers(files.shapes) else str
    if not any(rename(name) == "patch_embedding.weight" for name in files.shapes):
        raise ValueError(
            f"{path} is no Wan2.1 text-to-video transformer: it looks like {looks_like(files.shapes)}. Give "
            "the weights of Wan2.1 T2V."
        )
    model = JointDiT.on_meta(config)
    for name in _audio_modules(model):
        _materialise(model, name, dtype, device, seed)
    fresh = {name: p.detach() for name, p in model.named_parameters() if not p.is_meta}
    tensors = ((rename(name), tensor) for name, tensor in files.tensors(dtype, device))
    fill_module(model, _with_audio(tensors, config, fresh), str(path), files.shapes)
    return model.eval()


def save_published(
    model: JointDiT, folder: str | Path, dtype: torch.dtype | None = None, shard_bytes: int = SHARD_BYTES
) -> None:
    """Write `model/` in the release's layout: shards, their index, and a `config.json` with the release's settings.

    Args:
        model: network to write.
        folder: folder in which `model/` is created.
        dtype: dtype of the stored copy; None keeps the model's. The release stores bfloat16.
        shard_bytes: largest size of a shard in bytes.

    Raises:
        ValueError: if the release cannot express this network.
    """
    weights = Path(folder) / MODEL_FOLDER
    settings = model.config.to_published()
    write_shards(model.state_dict(), weights, dtype, shard_bytes)
    atomic_write_text(weights / CONFIG_NAME, json.dumps(settings, indent=2) + "\n")


def published_config(path: str | Path) -> JointDiTConfig:
    """Read the configuration of a checkpoint from its `config.json`, or infer it from the shapes of its tensors."""
    path = _weights_folder(Path(path))
    return _read_config(path, StateFiles(path))


def _weights_folder(path: Path) -> Path:
    return path / MODEL_FOLDER if (path / MODEL_FOLDER).is_dir() else path


def _read_config(path: Path, files: StateFiles) -> JointDiTConfig:
    config_path = path / CONFIG_NAME
    if config_path.is_file():
        settings = json.loads(config_path.read_text(encoding="utf-8"))
        is_own = "modalities" in settings  # written by JointDiT.save_pretrained
        return JointDiTConfig.from_dict(settings) if is_own else JointDiTConfig.from_published(settings)
    rename = from_wan_diffusers if is_wan_diffusers(files.shapes) else str
    sizes = infer_sizes({rename(name): shape for name, shape in files.shapes.items()})
    if int(sizes["dim"]) % PUBLISHED_HEAD_DIM:
        raise ValueError(
            f"{path} has width {sizes['dim']}, which is no published size, so its number of heads is unknown: add a "
            f"{CONFIG_NAME} with the release's model settings beside the weights, or pass config."
        )
    return JointDiTConfig.from_published(sizes | {"num_heads": int(sizes["dim"]) // PUBLISHED_HEAD_DIM})


def _audio_modules(model: JointDiT) -> tuple[str, ...]:
    return ("audio_patch_embedding", "audio_head") if "audio" in model.config.modalities else ()


def _materialise(model: JointDiT, name: str, dtype: torch.dtype, device: str | torch.device, seed: int) -> None:
    """Allocate and initialise the weights of one module of a model on the meta device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = model.get_submodule(name).to_empty(device="cpu")
        for child_name, child in module.named_modules(prefix=name):
            init_weights(child_name, child)
        module.to(device=device, dtype=dtype)


def _with_audio(
    tensors: Iterator[tuple[str, Tensor]], config: JointDiTConfig, fresh: dict[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """Yield Wan2.1's tensors, each followed by the audio tensors that start as a copy of it or of half of it."""
    yield from fresh.items()
    copied = "audio_" in config.experts
    for name, tensor in tensors:
        of_video = name.startswith(("patch_embedding.", "head.")) or (".ffn." in name and "" not in config.experts)
        if "video" in config.modalities or not of_video:
            yield name, tensor
        if copied and ".ffn." in name:
            yield name.replace(".ffn.", ".audio_ffn."), tensor.clone()
        elif copied and name.startswith("time_projection."):
            yield f"audio_{name}", tensor[tensor.shape[0] // 2 :].clone()
        elif copied and name.startswith("blocks.") and name.endswith(".modulation"):
            yield f"{name.removesuffix('modulation')}audio_modulation.param", tensor[:, tensor.shape[1] // 2 :].clone()
