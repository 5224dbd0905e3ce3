"""Import order of the console script: installed packages come before modules of the same names in the user's folder.

`python -m` puts the current folder first, and Ray puts it first in its workers. A user's project often has a `model/`
or an `evaluation/` of its own, which would then be imported in place of this project's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGES = frozenset(
    ("avdpo", "core", "dpo", "evaluation", "jobs", "media", "model", "pipeline", "recipes", "rewards", "synthetic")
)
ROOT = str(Path(__file__).parents[1])
_RAY_HOOK = "RAY_RUNTIME_ENV_HOOK"  # Ray calls it with the runtime environment of every `ray.init`


class InstalledFirst(MetaPathFinder):
    """Finder of this project's packages at the place where the project is installed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of one of `PACKAGES`; None leaves every other module to the usual search."""
        return PathFinder.find_spec(fullname, [ROOT], target) if fullname in PACKAGES else None


def prefer_installed() -> None:
    """Find this project's packages where they are installed, in this process and in Ray's workers.

    Modules of the current folder, such as a user's own rewards, are found after all installed ones.
    """
    prefer_installed_in_worker()
    here = os.getcwd()
    sys.path[:] = [path for path in sys.path if path not in ("", here) or here == ROOT] + [here]
    os.environ.setdefault(_RAY_HOOK, f"{__name__}.with_worker_hook")


def prefer_installed_in_worker() -> None:
    """Install the finder. Ray runs this in each worker, before the worker puts the driver's folder first."""
    if not any(isinstance(finder, InstalledFirst) for finder in sys.meta_path):
        sys.meta_path.insert(0, InstalledFirst())


def with_worker_hook(runtime_env: dict[str, Any] | None) -> dict[str, Any]:
    """Return Ray's runtime environment with `prefer_installed_in_worker` as the set-up of its workers."""
    return {"worker_process_setup_hook": f"{__name__}.{prefer_installed_in_worker.__name__}"} | (runtime_env or {})
