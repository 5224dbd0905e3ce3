"""An append-only file in an object store, which cannot append: numbered objects, of which the last is replaced.

Every object ends with a complete line. Rows are written in groups, since one request per row would delay the driver: a
killed run loses the rows of its last `FLUSH_S`, which are made again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from core.storage import is_local, read_object, storage_errors

SEGMENT_BYTES = 2**20  # then the next object is begun
FLUSH_S = 10.0


def read_lines(folder: Path) -> Iterator[bytes]:
    """Yield all lines, object by object. Raises ValueError where an object is missing from the sequence."""
    for path in _segments(folder):
        yield from read_object(path).splitlines(keepends=True)


def check_form(path: Path) -> None:
    """Refuse the journal of a run that was copied between disk and object store, which would not be found.

    Raises:
        ValueError: the journal has the other form; the message names the command that converts it.
    """
    folder = path.with_suffix("")
    if is_local(path) and not path.exists() and folder.is_dir():
        raise ValueError(
            f"{folder} is the journal of a run in an object store. For a run on disk make it one file: "
            f"`cat {folder}/*.jsonl > {path}`."
        )
    if not is_local(path) and path.is_file() and not _segments(folder):
        raise ValueError(
            f"{path} is the journal of a run on disk. For a run in an object store move it to {_segment(folder, 0)}."
        )


class SegmentedFile:
    """File of lines that one writer at a time appends to.

    A thread writes buffered lines when they are due: workers of equal speed give their rows together, and the next ones
    perhaps an hour later.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        paths = _segments(folder)
        self._number = max(0, len(paths) - 1)
        self._content = bytearray(read_object(paths[-1]) if paths else b"")
        del self._content[self._content.rfind(b"\n") + 1 :]  # an incomplete line, where the file was copied from a disk
        self._begin_next_if_full()
        self._is_written = True
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        self._due = 0.0  # on the monotonic clock: lines after a long pause are written at once

    def write(self, lines: bytes) -> None:
        with self._lock:
            self._content += lines
            self._is_written = False

    def flush(self) -> None:
        """Write the buffered lines if they are due, else schedule the write."""
        with self._lock:
            wait_s = self._due - time.monotonic()
            if wait_s <= 0 or len(self._content) >= SEGMENT_BYTES:
                self.sync()
            elif self._timer is None:
                self._timer = threading.Timer(wait_s, self._sync_when_due)
                self._timer.daemon = True
                self._timer.start()

    def sync(self) -> None:
        """Write the buffered lines now."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._is_written:
                return
            _segment(self._folder, self._number).write_bytes(bytes(self._content))
            self._is_written = True
            self._due = time.monotonic() + FLUSH_S
            self._begin_next_if_full()

    def close(self) -> None:
        self.sync()

    def _sync_when_due(self) -> None:
        with suppress(*storage_errors()):  # the next write is then at once, and raises in the caller
            self.sync()

    def _begin_next_if_full(self) -> None:
        if len(self._content) >= SEGMENT_BYTES:
            self._number += 1
            self._content.clear()


def _segment(folder: Path, number: int) -> Path:
    return folder / f"{number:08d}.jsonl"


def _segments(folder: Path) -> list[Path]:
    found = sorted(path.name for path in folder.glob("*.jsonl"))
    paths = [_segment(folder, number) for number in range(len(found))]
    if missing := [path for path in paths if path.name not in found]:
        raise ValueError(
            f"{missing[0]} is missing. Restore it, or delete {folder}: all of its rows will be made again."
        )
    return paths
