"""Lineage of a model: the rewards or annotators that selected its training preferences, read without loading weights.

Imports no torch.
"""

from __future__ import annotations

from pathlib import Path

from core.lineage import LINEAGE_NAME, Lineage, read_lineage
from model.presets import PRESETS, preset_path


def model_lineage(name_or_path: str | Path) -> Lineage:
    """Read the preference trainings of a preset or a model folder from `lineage.json`; for a checkpoint, of its run.

    Raises:
        ValueError: if the folder's lineage.json is damaged.
    """
    folder = preset_path(str(name_or_path)) if str(name_or_path) in PRESETS else Path(name_or_path)
    is_part = folder.name == "transformer" or folder.name.startswith("checkpoint-")
    return read_lineage(folder.parent if is_part and not (folder / LINEAGE_NAME).is_file() else folder)
