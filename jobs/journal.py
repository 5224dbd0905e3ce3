"""The journal of a stage's finished rows: append-only JSON lines, written by the driver alone.

The first line holds the settings that decide the content of rows: a folder never mixes rows of two settings.
A killed driver may leave an incomplete last line: it is ignored, and cut before the next line is written.
In an object store the journal is a folder of such files: see `jobs.journal_segments`.

Rows are not kept in memory, which days of work would fill, but read again from the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from core.storage import is_local
from jobs.journal_segments import SegmentedFile, check_form, read_lines

Row = dict[str, Any]


class Journal:
    """Rows of earlier runs and of this one, numbered from 0; on disk, appended rows survive a kill.

    The constructor only reads. Entering the `with` block creates the file and cuts an incomplete last line.

    Raises:
        ValueError: the file was written with other settings (the message names them), or copied from a store of the
            other kind.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        check_form(path)
        self.path = path if is_local(path) else path.with_suffix("")
        self._settings = json.loads(json.dumps(settings))  # in the form that is read back
        recorded, self.num_rows, self._valid_bytes = _scan(self.path)
        self._file: BinaryIO | SegmentedFile | None = None
        if recorded is not None:
            _check_settings(path.parent, recorded, self._settings)

    def __enter__(self) -> Self:
        if is_local(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "ab")
            self._file.truncate(self._valid_bytes)
        else:
            self._file = SegmentedFile(self.path)
        if self._valid_bytes == 0:
            self._write([{"settings": self._settings}])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        self._file.close()

    def append(self, rows: Sequence[Row]) -> range:
        """Append finished rows, and return their numbers."""
        self._write(rows)
        numbers = range(self.num_rows, self.num_rows + len(rows))
        self.num_rows = numbers.stop
        return numbers

    def rows(self) -> Iterator[Row]:
        """Yield every row in order, reading the file lazily.

        Raises:
            ValueError: the file is damaged before its end.
        """
        if isinstance(self._file, SegmentedFile):
            self._file.sync()
        lines = islice(_lines(self.path), 1, self.num_rows + 1)  # after the settings
        for number, line in enumerate(lines, start=2):
            yield _parse(self.path, number, line)

    def _write(self, rows: Sequence[Row]) -> None:
        assert self._file is not None, "rows are added in the `with` block"
        self._file.write(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
        self._file.flush()


def _lines(path: Path) -> Iterator[bytes]:
    if not is_local(path):
        yield from read_lines(path)
    elif path.exists():
        with open(path, "rb") as file:
            yield from file


def _scan(path: Path) -> tuple[dict[str, Any] | None, int, int]:
    """Return the settings (None for a new journal), the number of rows, and the bytes of all complete lines."""
    settings, num_lines, valid_bytes = None, 0, 0
    for line in _lines(path):
        if not line.endswith(b"\n"):
            break
        if num_lines == 0:
            settings = _parse(path, 1, line)["settings"]
        num_lines += 1
        valid_bytes += len(line)
    return settings, max(0, num_lines - 1), valid_bytes


def _parse(path: Path, number: int, line: bytes) -> Row:
    try:
        return json.loads(line)
    except ValueError as error:
        raise ValueError(
            f"{path}, line {number}: damaged, not JSON ({error}). Delete the line: its rows will be made again."
        ) from error


def _check_settings(folder: Path, recorded: dict[str, Any], wanted: dict[str, Any]) -> None:
    absent = "(absent)"
    changed = [
        f"{key}: {recorded.get(key, absent)!r} before, {wanted.get(key, absent)!r} now"
        for key in sorted({*recorded, *wanted})
        if recorded.get(key, absent) != wanted.get(key, absent)
    ]
    if changed:
        raise ValueError(
            f"{folder} holds results made with other settings ({'; '.join(changed)}), and a folder must not mix them. "
            "Restore the former settings, choose another output_dir, or delete this folder to start again."
        )
