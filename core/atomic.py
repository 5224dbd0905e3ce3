"""Atomic writing: files and folders get their final name only when complete, on disk or in an object store."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.storage import is_local, list_files, storage_path, temporary_folder, upload

TEMPORARY_PREFIX = ".tmp-"  # of files that a killed process may leave behind; never of a finished file


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary local path, which becomes `path` on success and is removed on error.

    On disk the temporary file is in the folder of `path` (made if missing) and is renamed; its name does not contain
    the final name, which may thus be as long as the file system allows. To an object store the file is uploaded whole.
    """
    path = storage_path(path)
    if not is_local(path):
        with temporary_folder() as folder:
            yield folder / path.name
            upload(folder / path.name, path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 `text` to `path`: readers see the old file or the whole new one."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def atomic_folder(folder: Path, last: str) -> Iterator[Path]:
    """Yield the path of a temporary local folder to create, which replaces `folder` on success and is removed on error.

    On disk it is renamed. An object store has no rename: there the file `last`, without which readers do not accept
    the folder, is deleted first and uploaded last. The former content of the folder is deleted.
    """
    if not is_local(folder):
        with temporary_folder() as parent:
            yield parent / folder.name
            _upload_folder(parent / folder.name, folder, last)
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    # A process id alone is not unique: every container begins to count at 1.
    own = f"{os.getpid()}-{secrets.token_hex(4)}"
    temporary, former = (folder.parent / f"{prefix}{own}" for prefix in _temporary_prefixes(folder))
    try:
        yield temporary
        if folder.exists():
            os.rename(folder, former)
        os.rename(temporary, folder)
        shutil.rmtree(former, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_temporary_folders(folder: Path) -> None:
    """Delete what killed writers of `folder` left beside it. The caller must know that no writer is at work."""
    if is_local(folder) and folder.parent.is_dir():
        for prefix in _temporary_prefixes(folder):
            for path in folder.parent.glob(f"{prefix}*"):
                shutil.rmtree(path)


def _temporary_prefixes(folder: Path) -> tuple[str, str]:
    return f"{TEMPORARY_PREFIX}{folder.name}-", f"{TEMPORARY_PREFIX}former-{folder.name}-"


def _upload_folder(source: Path, folder: Path, last: str) -> None:
    names = [path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()]
    former = list_files(folder)
    for name in sorted(former, key=lambda name: name != last):
        if name == last or name not in names:
            (folder / name).unlink()
    for name in sorted(names, key=lambda name: name == last):
        upload(source / name, folder / name)
