"""The state of a training run's folder: its settings, its summary when finished, its latest checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.atomic import atomic_write_text
from core.stage_state import finished_summary, refuse_changes

RUN_NAME = "run.json"  # settings of the run that owns the folder, written before the first step
# Settings that may change between two runs into one folder: none of them changes the trained weights.
NEUTRAL_SETTINGS = frozenset(
    {"dry_run", "resume_from_checkpoint", "logging_steps", "logging_first_step", "save_steps", "save_total_limit"}
    | {"report_to", "run_name", "disable_tqdm", "dataloader_num_workers", "output_dir"}
)


def comparable(settings: Mapping[str, Any], neutral: frozenset[str] = NEUTRAL_SETTINGS) -> dict[str, Any]:
    """Return the settings that decide the trained weights, as plain JSON values."""
    return json.loads(json.dumps({name: value for name, value in settings.items() if name not in neutral}))


def claim_folder(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the summary of the finished run with these settings, or None: then `begin` may start it.

    Raises:
        ValueError: the folder belongs to a run of other settings.
    """
    found = finished_summary(folder)
    path = folder / RUN_NAME
    started = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    owner = found["settings"] if found else started
    if owner is not None:
        refuse_changes(folder, owner, dict(settings))
    return found


def begin(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings of the run that owns the folder."""
    atomic_write_text(folder / RUN_NAME, json.dumps(dict(settings), indent=2) + "\n")


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the last complete checkpoint, or None. An incomplete one lacks its state, which is written last."""
    complete = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
    return max(complete, key=checkpoint_step, default=None)


def checkpoint_step(checkpoint: Path) -> int:
    return int(checkpoint.name.rsplit("-", 1)[1])


def checkpoint_to_resume(folder: Path, wanted: str | None) -> Path | None:
    """Return the checkpoint that `resume_from_checkpoint` names: "latest" (None where there is none yet), or a folder.

    Raises:
        ValueError: the folder is no complete checkpoint.
    """
    if not wanted:
        return None
    if wanted == "latest":
        return latest_checkpoint(folder)
    if not (Path(wanted) / "trainer_state.json").is_file():
        raise ValueError(f"{wanted} is no complete checkpoint: give a checkpoint-<step> folder, or 'latest'.")
    return Path(wanted)
