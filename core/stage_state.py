"""The state of a stage's folder: the summary of a finished run, and a check of its settings. Imports nothing heavy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def finished_summary(folder: Path) -> dict[str, Any] | None:
    """Return the summary of a finished stage, which writes it last; None otherwise."""
    path = folder / "summary.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def refuse_changes(folder: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise ValueError naming the settings in `wanted` that differ from those `found` in the folder."""
    changed = [
        f"{name} ({found.get(name)!r} -> {value!r})" for name, value in wanted.items() if found.get(name) != value
    ]
    if changed:
        raise ValueError(
            f"{folder} was made with other settings: {', '.join(changed)}. One folder cannot hold the results of "
            "both: choose another folder, or delete this one."
        )
