"""The record of a round's data: hashes of media, latents, tables and settings, checked before training.

A round is published when its data is complete. Continuing a round whose files were changed, lost or sampled from other
weights since then would train on something that no longer belongs together, so it is refused by name.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from core.atomic import atomic_write_text
from pipeline.rounds.config import RoundsConfig
from pipeline.sample.model_identity import model_identity

PUBLISHED_NAME = "published.json"
_DATA = ("preferences", "training")
_CHANGING = ("summary.json", ".lock")  # files that a repeated stage may write again
_SHOWN = 3


def publish(config: RoundsConfig, number: int) -> None:
    """Write the record of a round's data, or compare the data with an earlier record.

    Raises:
        ValueError: if files, settings or the model differ from those that were published.
    """
    path = config.folder(number) / PUBLISHED_NAME
    found = record(config, number)
    if not path.is_file():
        atomic_write_text(path, json.dumps(found, indent=2) + "\n")
        return
    published = json.loads(path.read_text(encoding="utf-8"))
    changes = _changes(published, found)
    if changes:
        more = f" and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else ""
        raise ValueError(
            f"round {number} was published with other data: {', '.join(changes[:_SHOWN])}{more}. Restore the files, or "
            f"delete {config.folder(number)} to make the round again."
        )


def record(config: RoundsConfig, number: int) -> dict[str, Any]:
    """Return the identity of the model that sampled, the settings of the run, and a hash per file of the round."""
    folder = config.folder(number)
    files = sorted(path for name in _DATA for path in (folder / name).rglob("*") if _is_data(path))
    return {
        "policy": model_identity(config.model_of(number - 1)),
        "settings": config.recorded,
        "files": {str(path.relative_to(folder)): _sha256(path) for path in files},
    }


def _is_data(path: Path) -> bool:
    return path.is_file() and not any(path.name.endswith(name) for name in _CHANGING)


def _changes(published: dict[str, Any], found: dict[str, Any]) -> list[str]:
    before, after = published["files"], found["files"]
    lost = [f"{name} is missing" for name in before if name not in after]
    changed = [f"{name} has changed" for name in before if after.get(name, before[name]) != before[name]]
    policy = ["the model that sampled has other weights"] if published["policy"] != found["policy"] else []
    settings = [
        f"{name} was {value!r}" for name, value in published["settings"].items() if found["settings"].get(name) != value
    ]
    return [*policy, *settings, *lost, *changed]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
