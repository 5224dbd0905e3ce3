"""Names and folders of the presets that ship with the project."""

from __future__ import annotations

from pathlib import Path

PRESETS = ("tiny",)


def preset_path(name: str) -> Path:
    """Return the folder of a shipped preset.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in PRESETS:
        raise ValueError(f"There is no preset {name!r}: use one of {', '.join(PRESETS)} or the path of a model folder.")
    return Path(__file__).parent / name
