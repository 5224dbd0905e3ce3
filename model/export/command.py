"""Export of a trained model, with its adapters merged, in this project's layout or the release's, and to the hub.

python -m model.export --model runs/dpo --output exported
python -m model.export --model runs/dpo --output exported --layout release --dtype bfloat16 --push_to_hub me/my-model

Adapters are merged into their base weights; `--merge false` keeps the last adapter separate, in the release's `lora/`.
Every option `--model` of this project accepts the exported folder.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from core.cli import echo, parse_config
from model.export.config import ExportConfig

ABOUT = "Export a trained model with its adapters merged, optionally to the Hugging Face hub."


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0 on success, 2 on wrong input or an error from the hub."""
    config = parse_config(ExportConfig, argv, about=ABOUT)
    from huggingface_hub.errors import HTTPError

    from model.export.folder import export  # late: imports torch

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


def push(folder: Path, repo_id: str, private: bool = False) -> None:
    """Upload the folder to the hub. HF_TOKEN or `hf auth login` identifies the user."""
    from huggingface_hub import HfApi

    api = HfApi()
    api.create_repo(repo_id, repo_type="model", private=private, exist_ok=True)
    api.upload_folder(repo_id=repo_id, folder_path=folder, repo_type="model", commit_message="Joint audio-video model")
