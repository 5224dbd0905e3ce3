"""Errors that stop a stage. Finished work is kept, and the same command continues when the cause is removed."""

from __future__ import annotations

import errno
import re
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_IN_RUST = re.compile(rf"\(os error ({'|'.join(map(str, _FULL))})\)")  # safetensors' errors have no errno


class StageStoppedError(RuntimeError):
    """A stage stopped before all of its work was done."""


class WorkerStartError(StageStoppedError):
    """An actor could not be set up (for example, its model could not be loaded), so no job can run."""


class NoSpaceError(StageStoppedError):
    """The disk, or the quota on it, is full, so that further results could not be kept."""

    def __init__(self, folder: Path, error: str) -> None:
        super().__init__(
            f"no space is left for {folder} ({error}). Finished work is kept, and nothing was counted as failed. "
            "Free some space, then give the same command again."
        )


def is_full_disk(error: BaseException) -> bool:
    """Return whether a write failed on a full disk, from an error of Python, PyAV, Arrow or safetensors."""
    return getattr(error, "errno", None) in _FULL or _FULL_IN_RUST.search(str(error)) is not None


def check_lasts(folder: Path) -> None:
    """Refuse a folder that Ray deletes after the job.

    Raises:
        ValueError: it lies in the copy of the working directory (`ray job submit --working-dir`) that Ray deletes.
    """
    if any(part.startswith("_ray_pkg_") for part in folder.resolve().parts):
        raise ValueError(
            f"{folder} lies in the copy of the working directory that Ray made for this job and deletes after it, so "
            "the results would be lost. Give an absolute output folder, on storage that every node mounts."
        )
