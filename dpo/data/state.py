"""Which pairs a training dataset was made from. Imports nothing heavy."""

from __future__ import annotations

import json
from pathlib import Path


def dataset_fingerprint(folder: Path) -> str:
    """Changes with the rows of a training dataset: with the pairs and the model it was made from, and what failed.

    Raises:
        ValueError: the folder holds no dataset.
    """
    state = folder / "state.json"
    if not state.is_file():
        raise ValueError(f"{folder} holds no training dataset: make one with `python -m dpo.prepare`.")
    return str(json.loads(state.read_text(encoding="utf-8"))["_fingerprint"])
