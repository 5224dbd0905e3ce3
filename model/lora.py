"""LoRA adapters in peft layout: attached with peft for training, merged into a network layer by layer for use.

peft's own merge is not used: it gives the same weights bit for bit, but keeps the adapter in memory twice beside the
model (measured with a float32 adapter of rank 64 on 6 blocks of the published width, peak memory in units of the model,
here / peft: float32 1.18 / 1.17, bfloat16 1.44 / 1.59, of which 0.3 does not grow with the number of blocks), only
warns about missing tensors, silently ignores tensors that fit nowhere, and freezes the model.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from core.state_files import StateFiles, misfit_error
from model.presets import PRESETS

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

ADAPTER_CONFIG_NAME = "adapter_config.json"
ADAPTER_WEIGHTS_NAMES = ("adapter_model.safetensors", "adapter_model.bin")
_PREFIX, _SUFFIX = "base_model.model.", ".weight"
# Settings with which a layer is not W + alpha / r * B A, unless they are off.
_UNSUPPORTED: tuple[str, ...] = (
    *("use_rslora", "use_dora", "fan_in_fan_out", "lora_bias", "rank_pattern", "alpha_pattern"),
    *("modules_to_save", "layers_to_transform", "target_parameters", "exclude_modules"),
)


class AdapterSettings(Protocol):
    """Settings of a training run's adapter.

    Published: rank 64, alpha 16, dropout 0.05, all attention and feed-forward layers.
    """

    lora_r: int
    lora_alpha: int
    lora_dropout: float
    lora_target_modules: list[str]
    model: str


def lora_config(settings: AdapterSettings) -> LoraConfig:
    """Return peft's configuration of the adapter; the base model is a preset's name or an absolute path."""
    from peft import LoraConfig

    is_folder = settings.model not in PRESETS and Path(settings.model).is_dir()
    return LoraConfig(
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=settings.lora_target_modules,
        base_model_name_or_path=str(Path(settings.model).absolute()) if is_folder else settings.model,
    )


def attach_adapter(model: nn.Module, config: LoraConfig, seed: int) -> PeftModel:
    """Freeze `model` and add a new adapter, whose update starts at exactly zero (its B matrices are zero).

    Raises:
        ValueError: if no layer of the model matches `config.target_modules`.
    """
    from peft import get_peft_model
    from transformers import set_seed

    set_seed(seed)  # the A matrices are random
    vars(model)["name_or_path"] = config.base_model_name_or_path  # peft copies it back into the config
    adapted: PeftModel = get_peft_model(model, config)
    return adapted


@torch.no_grad()
def merge_lora(model: nn.Module, folder: str | Path, adapter_scale: float = 1.0) -> None:
    """Add an adapter's update alpha / r * B A, computed in float32, to the weights of a network in place.

    Args:
        model: network that contains the adapter's target modules.
        folder: folder with `adapter_config.json` and `adapter_model.safetensors` or `.bin`.
        adapter_scale: factor on the update.

    Raises:
        ValueError: if the adapter is no plain LoRA, or its tensors are not exactly those of its target modules.
    """
    folder = Path(folder)
    config = check_adapter(model, folder)
    targets = _target_modules(model, config["target_modules"])
    files = adapter_files(folder)
    scale = adapter_scale * config["lora_alpha"] / config["r"]
    halves: dict[str, Tensor] = {}
    for name, tensor in files.tensors(torch.float32):
        module_name, half = name.removeprefix(_PREFIX).removesuffix(_SUFFIX).rsplit(".lora_", 1)
        other = halves.pop(module_name, None)
        if other is None:
            halves[module_name] = tensor
            continue
        first, second = (tensor, other) if half == "A" else (other, tensor)
        weight = targets[module_name].weight
        update = second.to(weight.device) @ first.to(weight.device)
        weight.copy_(update.mul_(scale).add_(weight))


def check_adapter(model: nn.Module, folder: str | Path) -> dict[str, Any]:
    """Check that an adapter fits the network, and return its configuration.

    Raises:
        ValueError: if the adapter is no plain LoRA, or its tensors are not exactly those of its target modules.
    """
    config = _read_config(Path(folder))
    _check_names(adapter_files(folder), _target_modules(model, config["target_modules"]), config["r"])
    return config


def adapter_files(folder: str | Path) -> StateFiles:
    """Return the tensor files of the adapter in a folder, leaving out other weights of a training checkpoint.

    Raises:
        ValueError: if there are no tensor files.
    """
    found = [path for name in ADAPTER_WEIGHTS_NAMES if (path := Path(folder) / name).is_file()]
    return StateFiles(found[0] if found else folder)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / ADAPTER_CONFIG_NAME
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    used = [name for name in _UNSUPPORTED if config.get(name)]
    if config.get("bias", "none") != "none":
        used.append("bias")
    if config.get("peft_type", "LORA") != "LORA" or used:
        raise ValueError(
            f"{path} is a {config.get('peft_type')} adapter with {', '.join(used) or 'no further settings'}, but only "
            "plain LoRA is merged here: merge the adapter with peft, and give the merged model."
        )
    return config


def _target_modules(model: nn.Module, targets: str | list[str]) -> dict[str, nn.Linear]:
    """Return the linear layers that a peft configuration selects, by a regular expression or by name suffixes."""

    def matches(name: str) -> bool:
        if isinstance(targets, str):
            return re.fullmatch(targets, name) is not None
        return any(name == target or name.endswith(f".{target}") for target in targets)

    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear) and matches(name)}


def _check_names(files: StateFiles, targets: dict[str, nn.Linear], rank: int) -> None:
    wanted = {}
    for name, module in targets.items():
        wanted[f"{_PREFIX}{name}.lora_A{_SUFFIX}"] = (rank, module.in_features)
        wanted[f"{_PREFIX}{name}.lora_B{_SUFFIX}"] = (module.out_features, rank)
    if error := misfit_error(wanted, files.shapes, str(files.path), "the model's adapted layers", files.shapes):
        raise error
