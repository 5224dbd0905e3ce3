"""Presets that ship with the project, by name."""

from __future__ import annotations

from pathlib import Path

PRESETS = ("tiny",)


def preset_path(name: str) -> Path:
    """Folder of a shipped preset.

    Raises:
        ValueError: for a name that is no preset.
    """
    if name not in PRESETS:
        raise ValueError(
            f"No preset is called {name!r}. Use one of {', '.join(PRESETS)} or the path of a model folder."
        )
    return Path(__file__).parent / name
