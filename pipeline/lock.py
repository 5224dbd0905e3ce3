"""One run at a time in a stage's folder: a second one is told who holds it, and does not mix its rows with the first's.

The lock is a file beside the folder, `.candidates.lock` for `candidates/`: what holds it, for people, and a lock of the
kernel on it. The kernel drops that lock with the process, however it ends, so what a killed run leaves on this machine
is taken over. Another machine cannot see whether the process lives, and must be told by deleting the file.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

Owner = dict[str, Any]  # host, pid, started, command


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold a stage's folder, which need not exist yet, for the length of the block.

    Raises:
        ValueError: another run holds it (the message names host, process, start and command), or held it on another
            host and has not released it.
    """
    path = lock_path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _held(path, folder) as file:
        try:
            file.truncate(0)
            file.write(json.dumps(_ourselves()))
            file.flush()
            yield
        finally:
            if _is_at(file, path):  # a person may have deleted it, and another run begun
                path.unlink()


def lock_path(folder: Path) -> Path:
    """Beside the folder, not in it: a stage may put its folder in place as a whole."""
    return folder.parent / f".{folder.name}.lock"


def _held(path: Path, folder: Path) -> TextIO:
    """The lock's file, opened and locked."""
    while True:
        with ExitStack() as stack:
            file = stack.enter_context(open(path, "a+", encoding="utf-8"))
            _refuse_others(file, _try_lock(file), path, folder)
            if _is_at(file, path):  # not released since it was opened
                stack.pop_all()
                return file


def _refuse_others(file: TextIO, is_free: bool, path: Path, folder: Path) -> None:
    file.seek(0)
    owner = _parse(file.read())
    if owner is not None and owner["host"] != socket.gethostname():
        raise ValueError(
            f"{folder} is in use by another run: {_describe(owner)}. Wait until it ends. If it no longer runs (this "
            f"host, {socket.gethostname()}, cannot see that), delete {path} and start again."
        )
    if not is_free:
        raise ValueError(
            f"{folder} is in use by another run: {_describe(owner)}. Wait until it ends, stop it, or choose another "
            "output_dir."
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


def _try_lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(file: TextIO, path: Path) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
