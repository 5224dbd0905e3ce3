"""One run at a time in a stage's folder: a second one is told who holds it, and does not mix its rows with the first's.

The lock is a file beside the folder, `.candidates.lock` for `candidates/`: what holds it, for people, and a lock of the
kernel on it. The kernel drops that lock with the process, however it ends, so what a killed run leaves on this machine
is taken over. Another machine cannot see whether the process lives, and must be told by deleting the file.

In an object store the file is an object, made by a conditional write. The kernel's lock is then on a file of this
machine that stands for it, so that what a killed run has left is told from a living one in the same way.
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
    """Hold a stage's folder, which need not exist yet, for the length of the block.

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
    """Beside the folder, not in it: a stage may put its folder in place as a whole."""
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
            if _is_at(file, path):  # a person may have deleted it, and another run begun
                path.unlink()


@contextmanager
def _lock_object(path: Path, folder: Path) -> Iterator[None]:
    """Holding the stand-in, an object of this host is nobody's: whoever made it is dead."""
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
    """A file of this machine, the same for all processes of a user that lock the same object."""
    folder = Path(tempfile.gettempdir(), f"avdpo-locks-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.lstat().st_uid != os.getuid():
        raise ValueError(f"{folder} belongs to another user, but locks are kept in it. Set TMPDIR to another folder.")
    return folder / hashlib.blake2b(str(path).encode(), digest_size=16).hexdigest()


def _held(path: Path, folder: Path) -> TextIO:
    """The lock's file, opened and locked."""
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
    """None for a run that is only starting, or died of it."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def _describe(owner: Owner | None) -> str:
    if owner is None:
        return "one that is just starting"
    return f"process {owner['pid']} on {owner['host']}, started {owner['started']}, `{owner['command']}`"


def _try_lock(file: TextIO, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(file: TextIO, path: Path) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
