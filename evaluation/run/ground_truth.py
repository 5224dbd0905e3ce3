"""The published features of JavisBench's ground truth, whose clips are not published."""

from __future__ import annotations

from pathlib import Path

import numpy as np

PUBLISHED_FEATURES = {"i3d": "video", "audioclip": "audio"}  # judge -> its entry in the file


def read_features(path: Path, judges: dict[str, int]) -> dict[str, np.ndarray]:
    """Return features (M, width) of the judges that the file has: `video` are I3D's, `audio` AudioCLIP's.

    Args:
        path: a .pt file as published (a dict of tensors), or an .npz file with the same entries.
        judges: name -> width of its features.

    Raises:
        ValueError: the file cannot be read, or holds features of another width, or none of what is wanted.
    """
    entries = _load(path)
    found = {}
    for name, width in judges.items():
        entry = PUBLISHED_FEATURES.get(name)
        if entry is None or entry not in entries:
            continue
        features = np.asarray(entries[entry], dtype=np.float32)
        if features.ndim != 2 or features.shape[1] != width:
            raise ValueError(
                f"{path} has {entry!r} of shape {features.shape}, but {name} gives {width} numbers per clip. Take the "
                "file that was made with this network."
            )
        found[name] = features
    return found


def _load(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise ValueError(
            f"ground_truth_features {path} does not exist: give the benchmark's cache file, or leave it out."
        )
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return dict(arrays)
    import torch  # late: only this layout needs it

    content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict) or not {"video", "audio"} & set(content):
        raise ValueError(f"{path} is no file of features: it should be a dict with `video` and `audio`.")
    return {name: value.float().numpy() for name, value in content.items() if isinstance(value, torch.Tensor)}
