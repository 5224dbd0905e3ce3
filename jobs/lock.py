"""The lock on a stage's folder: one run at a time; a second run is refused with a message that names the first.

The lock is a file beside the folder, `.candidates.lock` for `candidates/`, with the holder as text, and a kernel lock
on this file. The kernel releases its lock when the process ends in any way, so the lock of a killed run on this machine
is taken over. Another machine cannot see whether the process lives: there a person must delete the file.

In an object store the file is an object, made by a conditional write. The kernel lock is then on a file of this machine
that represents the object, so that a killed run is distinguished from a living one in the same way.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shlex
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from core.storage import create_exclusively, is_local, read_object

Owner = dict[str, Any]  # host, pid, started, command


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold a stage's folder, which need not exist yet, until the block ends.

    Raises:
        ValueError: another run holds it (the message names host, process, start and command), or held it on another
            host and has not released it.
    """
    path = lock_path(folder)
    with _lock_file(path, folder) if is_local(folder) else _lock_object(path, folder):
        yield


def check_unlocked(folder: Path) -> None:
    """Refuse a local folder that another run holds, without taking its lock.

    Raises:
        ValueError: as `lock_folder`.
    """
    path = lock_path(folder)
    with suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
        _refuse_others(file, _try_lock(file, fcntl.LOCK_SH), path, folder)


def lock_path(folder: Path) -> Path:
    """Return the path of the lock file: beside the folder, since a stage may replace its whole folder."""
    return folder.parent / f".{folder.name}.lock"


@contextmanager
def _lock_file(path: Path, folder: Path) -> Iterator[None]:
    with _held(path, folder) as file:
        try:
            file.truncate(0)
            file.write(json.dumps(_ourselves()))
            file.flush()
            yield
        finally:
            if _is_at(file, path):  # a person may have deleted the file, and another run may have begun
                path.unlink()


@contextmanager
def _lock_object(path: Path, folder: Path) -> Iterator[None]:
    """Hold a local file in place of the object. An object of this host without that lock belongs to a dead process."""
    with _lock_file(_stand_in(path), folder):
        content = json.dumps(_ourselves()).encode()
        _create(path, folder, content)
        try:
            yield
        finally:
            if _content(path) == content:
                path.unlink()


def _create(path: Path, folder: Path, content: bytes) -> None:
    while True:
        try:
            create_exclusively(path, content)
            return
        except FileExistsError:
            if (found := _content(path)) is None:  # released meanwhile
                continue
            _refuse_other_hosts(_parse(found.decode()), path, folder)
            path.unlink()


def _content(path: Path) -> bytes | None:
    try:
        return read_object(path)
    except FileNotFoundError:
        return None


def _stand_in(path: Path) -> Path:
    """Return the local file that represents the object, the same for all processes of a user."""
    folder = Path(tempfile.gettempdir(), f"avdpo-locks-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.lstat().st_uid != os.getuid():
        raise ValueError(f"{folder} belongs to another user, but locks are kept in it. Set TMPDIR to another folder.")
    return folder / hashlib.blake2b(str(path).encode(), digest_size=16).hexdigest()


def _held(path: Path, folder: Path) -> TextIO:
    """Open and lock the lock file."""
    while True:
        with ExitStack() as stack:
            file = stack.enter_context(_open(path))
            _refuse_others(file, _try_lock(file), path, folder)
            if _is_at(file, path):  # not released since it was opened
                stack.pop_all()
                return file


def _open(path: Path) -> TextIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "a+", encoding="utf-8")
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise ValueError(
            f"{path} cannot be written ({error.strerror}), and a run keeps its lock there, beside its output folder. "
            "Choose an output folder inside one that you may write to."
        ) from error


def _refuse_others(file: TextIO, is_free: bool, path: Path, folder: Path) -> None:
    file.seek(0)
    owner = _parse(file.read())
    _refuse_other_hosts(owner, path, folder)
    if not is_free:
        raise ValueError(
            f"{folder} is in use by another run: {_describe(owner)}. Wait until it ends, stop it, or choose another "
            "output folder."
        )


def _refuse_other_hosts(owner: Owner | None, path: Path, folder: Path) -> None:
    if owner is not None and owner["host"] != socket.gethostname():
        raise ValueError(
            f"{folder} is in use by another run: {_describe(owner)}. Wait until it ends. If it no longer runs (this "
            f"host, {socket.gethostname()}, cannot see that), delete {path} and start again."
        )


def _ourselves() -> Owner:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "command": shlex.join(sys.orig_argv),
    }


def _parse(text: str) -> Owner | None:
    """Return the holder; None for a run that is just starting, or died while it started."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def _describe(owner: Owner | None) -> str:
    if owner is None:
        return "a run that is just starting"
    return f"process {owner['pid']} on {owner['host']}, started {owner['started']}, `{owner['command']}`"


def _try_lock(file: TextIO, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(file: TextIO, path: Path) -> bool:
    """Return whether the open file is still the one at the path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
