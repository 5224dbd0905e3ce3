"""The exported folder: the network in either layout, its pipeline configuration, model card and lineage."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import torch
import yaml

from core.atomic import atomic_write_text
from core.lineage import write_lineage
from model.export.config import ExportConfig
from model.javisdit.network.transformer import JointDiT
from model.javisdit.pipeline import JointAVPipeline, read_defaults
from model.javisdit.weights.checkpoints import LORA_FOLDER, MODEL_FOLDER, save_published
from model.javisdit.weights.folders import PIPELINE_CONFIG_NAME, adapter_base, base_folder, load_transformer
from model.lineage import model_lineage
from model.lora import ADAPTER_CONFIG_NAME, adapter_files
from model.presets import PRESETS, preset_path


def export(config: ExportConfig) -> None:
    """Write the output folder with its model card and its lineage.

    Raises:
        ValueError: if there is no model, the release cannot express the network, or there is no adapter to keep
            separate.
    """
    dtype = getattr(torch, config.dtype)
    if config.layout == "release":
        _write_release(config, dtype)
    elif config.all_parts:
        pipeline = JointAVPipeline.from_pretrained(config.model, transformer=_network(config))
        pipeline.save_pretrained(config.output, dtype)
    else:
        _network(config).save_pretrained(config.output / "transformer", dtype)
        _write_pipeline_config(config, {})
    write_lineage(config.output, model_lineage(config.model))
    atomic_write_text(config.output / "README.md", model_card(config))


def model_card(config: ExportConfig) -> str:
    """Return the model card (README.md of the hub): description, origin, loading code and training settings."""
    front = {"tags": ["text-to-video", "text-to-audio", "audio-video", "javisdit"], "pipeline_tag": "text-to-video"}
    load = 'load_javisdit("FOLDER")' if config.layout == "release" else 'JointAVPipeline.from_pretrained("FOLDER")'
    name = load.split("(")[0].split(".")[0]
    adapter = "" if config.merge else ", adapter in lora/"
    if config.adapter_scale != 1:
        adapter += f", adapter times {config.adapter_scale:g}"
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False).rstrip(),
        "---",
        "# Joint audio-video generation model",
        "",
        f"Exported by `python -m model.export` from `{Path(config.model).name}`, weights in {config.dtype}{adapter}. "
        "The licence of the weights it was trained from applies.",
        "",
        "```python",
        f"from model import {name}",
        "",
        f"model = {load}",
        "```",
    ]
    if not config.all_parts and base_folder(config.model) not in map(preset_path, PRESETS):
        lines += [
            "",
            "This folder does not contain codecs and text encoder: fetch them with `python -m model.fetch --output "
            f"DIR`, and set `base` in `{PIPELINE_CONFIG_NAME}` to DIR.",
        ]
    run = Path(config.model) / "config.yaml"
    if run.is_file():
        lines += ["", "Training settings:", "", "```yaml", run.read_text(encoding="utf-8").rstrip(), "```"]
    return "\n".join(lines) + "\n"


def _write_release(config: ExportConfig, dtype: torch.dtype) -> None:
    """Write `model/`, and `lora/` if the adapter stays separate; the release's inference merges it on loading."""
    base = config.model if config.merge else adapter_base(config.model)
    if base is None:
        raise ValueError(f"merge is false, but {config.model} has no adapter to keep separate: set merge to true.")
    save_published(_network(config) if config.merge else load_transformer(base), config.output, dtype)
    if not config.merge:
        _write_release_adapter(config, config.output / LORA_FOLDER)
    _write_pipeline_config(config, {"transformer": "."})
    assert (config.output / MODEL_FOLDER).is_dir()


def _network(config: ExportConfig) -> JointDiT:
    return load_transformer(config.model, adapter_scale=config.adapter_scale)


def _write_release_adapter(config: ExportConfig, folder: Path) -> None:
    adapter = Path(config.model)
    folder.mkdir(parents=True)
    settings = json.loads((adapter / ADAPTER_CONFIG_NAME).read_text(encoding="utf-8"))
    settings["lora_alpha"] *= config.adapter_scale
    atomic_write_text(folder / ADAPTER_CONFIG_NAME, json.dumps(settings, indent=2) + "\n")
    torch.save(dict(adapter_files(adapter).tensors()), folder / "adapter_model.bin")


def _write_pipeline_config(config: ExportConfig, components: dict[str, str]) -> None:
    """Write `pipeline.json`, which refers to the folder that contains the codecs and the text encoder."""
    base = base_folder(config.model)
    where = config.model if config.model in PRESETS else os.path.relpath(base, config.output)
    settings = {"base": where, "components": components, "defaults": asdict(read_defaults(base / PIPELINE_CONFIG_NAME))}
    atomic_write_text(config.output / PIPELINE_CONFIG_NAME, json.dumps(settings, indent=2) + "\n")
