"""Which pairs a training dataset was made from.  Imports nothing heavy."""

import json
from pathlib import Path

from media.stage_state import finished_summary


def dataset_fingerprint(folder: Path) -> str:
    """What the training data was made from; for data made elsewhere, the fingerprint of the `datasets` package.

    Raises:
        ValueError: the folder holds no dataset.
    """
    state = folder / "state.json"
    if not state.is_file():
        raise ValueError(f"{folder} holds no training dataset: make one with `python -m dpo.prepare`.")
    summary = finished_summary(folder)
    if summary is not None:
        return f"{summary['settings']['pairs_fingerprint']}-{summary['settings']['model']}"
    return str(json.loads(state.read_text(encoding="utf-8"))["_fingerprint"])
