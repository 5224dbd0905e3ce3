"""Resolution of a model's name or path to its files: presets, pipeline folders, adapter folders and their bases."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from core.file_identity import files_identity
from model.javisdit.network.config import CONFIG_NAME, SIZES, JointDiTConfig
from model.javisdit.network.transformer import WEIGHTS_NAME, JointDiT
from model.javisdit.weights.checkpoints import load_javisdit, published_config
from model.lora import ADAPTER_CONFIG_NAME, merge_lora
from model.presets import PRESETS, preset_path

PIPELINE_CONFIG_NAME = "pipeline.json"
ENCODERS = ("video_codec", "audio_codec", "text_encoder")
_WEIGHT_FILES = ("*.safetensors", "*.bin", "*.pth")


def load_transformer(
    name_or_path: str | Path, dtype: torch.dtype = torch.float32, *, adapter_scale: float = 1.0
) -> JointDiT:
    """Load only the network of a preset, a pipeline folder or an adapter folder (merged), on the CPU.

    Args:
        name_or_path: name of a preset, or path of a folder.
        dtype: dtype of the weights.
        adapter_scale: factor on the update of the folder's own adapter; adapters of its base are not scaled.

    Raises:
        ValueError: if the folder contains neither a pipeline nor an adapter, or no adapter to scale.
    """
    folder = _resolve(name_or_path)
    base = _adapter_base(folder)
    if base is None:
        path = component_path(base_folder(name_or_path), "transformer")
        if adapter_scale != 1:
            raise ValueError(
                f"adapter_scale is {adapter_scale}, but {name_or_path} has no adapter to scale: leave it at 1."
            )
        return JointDiT.from_pretrained(path, dtype) if _is_own(path) else load_javisdit(path, dtype=dtype)
    model = load_transformer(base, dtype)
    merge_lora(model, folder, adapter_scale)
    return model


def transformer_config(name_or_path: str | Path) -> JointDiTConfig:
    """Return the configuration of a model's network without loading weights."""
    path = component_path(base_folder(name_or_path), "transformer")
    if _is_own(path):
        return JointDiTConfig.from_dict(json.loads((path / CONFIG_NAME).read_text(encoding="utf-8")))
    return published_config(path)


def base_folder(name_or_path: str | Path) -> Path:
    """Return the pipeline folder of a model; for an adapter, that of its base.

    Raises:
        ValueError: if there is no model at the path.
    """
    folder = _resolve(name_or_path)
    base = _adapter_base(folder)
    if base is not None:
        return base_folder(base)
    if not (folder / PIPELINE_CONFIG_NAME).exists():
        where = (
            "Its weights are not shipped: fetch them with `python -m model.fetch --output DIR` and give DIR."
            if str(name_or_path) in SIZES
            else "Give the folder that training wrote."
        )
        raise ValueError(
            f"{str(name_or_path)!r} is no model: it is neither a preset ({', '.join(PRESETS)}) nor a folder with "
            f"{PIPELINE_CONFIG_NAME} or {ADAPTER_CONFIG_NAME}. {where}"
        )
    return folder


def adapter_base(name_or_path: str | Path) -> str | None:
    """Return the name or path of an adapter folder's base model; None for a model that is no adapter."""
    return _adapter_base(_resolve(name_or_path))


def encoders_identity(name_or_path: str | Path) -> str:
    """Return twelve hex digits that change with the weights of a model's codecs and text encoder.

    A trained folder refers to the codecs and text encoder of its base, so both give the same digits.
    """
    base, identity = base_folder(name_or_path), ""
    for name in ENCODERS:
        path = component_path(base, name)
        files = sorted(file for pattern in _WEIGHT_FILES for file in path.rglob(pattern)) if path.is_dir() else [path]
        identity = files_identity(files, path.parent, identity)
    return identity


def component_path(folder: Path, name: str) -> Path:
    """Return the path of the part `name` of the pipeline in `folder`.

    The path is `folder/name`, unless `pipeline.json` gives another one. A trained folder contains only the network;
    its other parts are found in its `base`.
    """
    settings = json.loads((folder / PIPELINE_CONFIG_NAME).read_text(encoding="utf-8"))
    own = folder / settings.get("components", {}).get(name, name)
    base = settings.get("base")
    if base is None or own.exists():
        return own
    return component_path(base_folder(base if base in PRESETS else folder / base), name)


def _is_own(path: Path) -> bool:
    """Return true if `JointDiT.save_pretrained` wrote the folder, false if it has the release's layout."""
    return (path / CONFIG_NAME).is_file() and (path / WEIGHTS_NAME).is_file()


def _adapter_base(folder: Path) -> str | None:
    """Return the base model of the adapter in `folder`; None without an adapter."""
    path = folder / ADAPTER_CONFIG_NAME
    return json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"] if path.exists() else None


def _resolve(name_or_path: str | Path) -> Path:
    return preset_path(str(name_or_path)) if str(name_or_path) in PRESETS else Path(name_or_path)
