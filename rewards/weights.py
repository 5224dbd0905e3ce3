"""Where the weights of a reward are: a file, a folder of `model.fetch`, or the preset that is trained on Bounce."""

from __future__ import annotations

from pathlib import Path

PRESETS = Path(__file__).parent / "presets"
CONFIG_NAME = "config.json"


def find_weights(path: str | None, reward: str, published: str) -> Path:
    """The file or folder that a reward loads.

    Args:
        path: the file or folder itself, a folder that holds it under its published name, or the name of a preset.
        reward: name of the reward, which is its component's name in `model.fetch` too.
        published: file or folder name as published, e.g. "imagebind_huge.pth".

    Raises:
        ValueError: no path was given, or nothing is there.
    """
    fetch = f"python -m model.fetch --components {reward} --output weights --accept_licences"
    if path is None:
        raise ValueError(
            f"The reward {reward!r} needs weights. Give the folder that they were fetched to ({fetch}), or 'tiny' for "
            "the preset that was trained on Bounce."
        )
    if (preset := PRESETS / path / reward).is_dir():
        return preset
    for found in (Path(path) / published, Path(path) / reward, Path(path)):
        if found.exists():
            return found
    raise ValueError(
        f"The weights {path!r} of the reward {reward!r} do not exist: there is no such file, folder or preset. "
        f"Fetch them with: {fetch}"
    )
