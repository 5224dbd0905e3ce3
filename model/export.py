"""A trained model for others: merged, in this project's layout or the release's, and on the hub.

python -m model.export --model runs/dpo --output exported
python -m model.export --model runs/dpo --output exported --layout release --dtype bfloat16 --push_to_hub me/my-model

Adapters are merged into the weights that they belong to; `--merge false` keeps the last one beside them, in the
release's `lora/`. The folder is a model for every `--model`.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import torch
import yaml

from core.atomic import atomic_write_text
from core.cli import echo, parse_config
from core.lineage import write_lineage
from model.javisdit.network.transformer import JointDiT
from model.javisdit.pipeline import JointAVPipeline, read_defaults
from model.javisdit.weights.checkpoints import LORA_FOLDER, MODEL_FOLDER, save_published
from model.javisdit.weights.folders import PIPELINE_CONFIG_NAME, adapter_base, base_folder, load_transformer
from model.lineage import model_lineage
from model.lora import ADAPTER_CONFIG_NAME, adapter_files
from model.presets import PRESETS, preset_path

ABOUT = "Writes a trained model, its adapters merged, for others to use."

Layout = Literal["pipeline", "release"]
Dtype = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Settings of `python -m model.export`."""

    model: str = field(metadata={"help": "a run's folder, its ema/, or any other model"})
    output: Path = field(metadata={"help": "folder to write"})
    layout: Layout = field(
        default="pipeline", metadata={"help": "pipeline (safetensors), or release: model/ as published code loads it"}
    )
    dtype: Dtype = field(default="float32", metadata={"help": "of the stored network; the release has bfloat16"})
    merge: bool = field(default=True, metadata={"help": "with layout release: false keeps the adapter in lora/"})
    adapter_scale: float = field(
        default=1.0,
        metadata={
            "help": "how many times the last adapter is added: above 1 goes on the way that preference training went "
            "(ExPO, arXiv 2404.16792); choose it on captions that you report nothing on"
        },
    )
    all_parts: bool = field(
        default=False,
        metadata={"help": "with layout pipeline: codecs and text encoder too, so that the folder stands alone"},
    )
    push_to_hub: str | None = field(default=None, metadata={"help": "owner/name of a model on the hub to push it to"})
    private: bool = field(default=False, metadata={"help": "make the repository private, where it is new"})

    def __post_init__(self) -> None:
        if self.layout == "release" and self.all_parts:
            raise ValueError("all_parts belongs to layout 'pipeline': the release's has the network alone.")
        if self.layout == "pipeline" and not self.merge:
            raise ValueError("merge false belongs to layout 'release'; the adapter's own folder is a model as it is.")
        if not 0 < self.adapter_scale < math.inf:
            raise ValueError(
                f"adapter_scale is {self.adapter_scale}: give a number above 0; 1 is the adapter as trained."
            )
        if self.push_to_hub is not None and self.push_to_hub.count("/") != 1:
            raise ValueError(f"push_to_hub is {self.push_to_hub!r}, but must be owner/name.")
        if self.output.exists() and any(self.output.iterdir()):
            raise ValueError(f"{self.output} is not empty: choose another folder, or delete this one.")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; 0 on success, 2 on a mistake in the input or a refusal of the hub."""
    config = parse_config(ExportConfig, argv, about=ABOUT)
    from huggingface_hub.errors import HTTPError

    try:
        export(config)
        if config.push_to_hub:
            push(config.output, config.push_to_hub, config.private)
    except (ValueError, HTTPError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    size = sum(path.stat().st_size for path in config.output.rglob("*") if path.is_file())
    pushed = f", pushed to {config.push_to_hub}" if config.push_to_hub else ""
    echo(f"export: {size / 1e6:.1f} MB in {config.output}{pushed}")
    return 0


def export(config: ExportConfig) -> None:
    """Writes the folder with its card and its lineage.

    Raises:
        ValueError: no model, a network that the release cannot hold, or no adapter to keep apart.
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


def push(folder: Path, repo_id: str, private: bool = False) -> None:
    """Uploads the folder; HF_TOKEN, or `hf auth login`, says who you are."""
    from huggingface_hub import HfApi

    api = HfApi()
    api.create_repo(repo_id, repo_type="model", private=private, exist_ok=True)
    api.upload_folder(repo_id=repo_id, folder_path=folder, repo_type="model", commit_message="Joint audio-video model")


def model_card(config: ExportConfig) -> str:
    """What the model is, where it comes from and how to load it, as the hub shows it."""
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
            "Codecs and text encoder are not part of this folder: fetch them by `python -m model.fetch --output DIR`, "
            f"and write DIR as `base` into `{PIPELINE_CONFIG_NAME}`.",
        ]
    run = Path(config.model) / "config.yaml"
    if run.is_file():
        lines += ["", "Settings of its training:", "", "```yaml", run.read_text(encoding="utf-8").rstrip(), "```"]
    return "\n".join(lines) + "\n"


def _write_release(config: ExportConfig, dtype: torch.dtype) -> None:
    """`model/`, and `lora/` where the adapter is kept apart; the release's inference merges it on loading."""
    base = config.model if config.merge else adapter_base(config.model)
    if base is None:
        raise ValueError(f"merge is false, and {config.model} has no adapter to keep apart: leave merge true.")
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
    """Codecs and text encoder stay where they are, and the folder says where."""
    base = base_folder(config.model)
    where = config.model if config.model in PRESETS else os.path.relpath(base, config.output)
    settings = {"base": where, "components": components, "defaults": asdict(read_defaults(base / PIPELINE_CONFIG_NAME))}
    atomic_write_text(config.output / PIPELINE_CONFIG_NAME, json.dumps(settings, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
