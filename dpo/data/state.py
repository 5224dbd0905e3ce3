"""Fingerprint of a training dataset. Imports neither torch nor datasets."""

from __future__ import annotations

import json
from pathlib import Path


def dataset_fingerprint(folder: Path) -> str:
    """Return a text that changes with the rows of a training dataset: its pairs, its model and its failures.

    Raises:
        ValueError: if the folder holds no dataset.
    """
    state = folder / "state.json"
    if not state.is_file():
        raise ValueError(f"{folder} holds no training dataset: make one with `python -m dpo.prepare`.")
    return str(json.loads(state.read_text(encoding="utf-8"))["_fingerprint"])
