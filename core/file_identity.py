"""Hashes that identify files without reading large ones whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

_PROBE_BYTES = 2**20


def files_identity(files: Iterable[Path], root: Path, more: str = "") -> str:
    """Return 12 hex digits of names, sizes and both ends of files under `root`, and of the text `more`."""
    digest = hashlib.blake2b(digest_size=6)
    for path in files:
        digest.update(f"{os.path.relpath(path, root)}\0{path.stat().st_size}\0".encode())
        digest.update(_ends(path))
    digest.update(more.encode())
    return digest.hexdigest()


def visible_files(path: Path) -> list[Path]:
    """Return the path itself, or the files in it, sorted; [] where there is nothing.

    Hidden files in a folder, such as the cache of a download, are left out.
    """
    if not path.is_dir():
        return [path] if path.is_file() else []
    inside = (file.relative_to(path) for file in sorted(path.rglob("*")) if file.is_file())
    return [path / file for file in inside if not any(part.startswith(".") for part in file.parts)]


def _ends(path: Path) -> bytes:
    """Read the first and last megabyte: a whole small adapter, or enough of a network with all tensors trained."""
    with open(path, "rb") as file:
        head = file.read(_PROBE_BYTES)
        file.seek(max(len(head), path.stat().st_size - _PROBE_BYTES))
        return head + file.read()
