"""The record of what a stage has finished: append-only JSON lines, written by the driver alone.

The first line holds the settings that decide what the rows look like: a folder never mixes rows of two settings.
A killed driver may leave a torn last line: it is ignored, and cut off before the next line is written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

Row = dict[str, Any]


class Journal:
    """Rows of earlier runs in `rows`; new ones are added by `append` and are safe from a kill once it returns.

    Opening only reads. The file is made, and a torn last line cut, on entering the `with` block.

    Raises:
        ValueError: the file was written with other settings (the message names them), or is damaged before its end.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        self._settings = _plain(settings)
        recorded, self.rows, self._valid_bytes = _read(path)
        if recorded is not None:
            _check_settings(path.parent, recorded, self._settings)

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "ab")
        self._file.truncate(self._valid_bytes)
        if self._valid_bytes == 0:
            self._write([{"settings": self._settings}])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, rows: Iterable[Row]) -> list[Row]:
        """Record finished rows. Returns them as `rows` holds them: kept by the caller too, they take no more memory."""
        added = _plain(list(rows))
        self._write(added)
        self.rows.extend(added)
        return added

    def _write(self, rows: list[Row]) -> None:
        self._file.write(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
        self._file.flush()


def _read(path: Path) -> tuple[dict[str, Any] | None, list[Row], int]:
    """Settings (None for a new journal), rows, and how many bytes of the file are whole lines."""
    if not path.exists():
        return None, [], 0
    content = path.read_bytes()
    valid_bytes = content.rfind(b"\n") + 1
    lines = content[:valid_bytes].splitlines()
    try:
        rows = json.loads(b"[" + b",".join(lines) + b"]")  # at once, so that rows share the names of their columns
    except ValueError:
        rows = [_parse(path, number, line) for number, line in enumerate(lines, start=1)]
    return (rows[0]["settings"], rows[1:], valid_bytes) if rows else (None, [], 0)


def _parse(path: Path, number: int, line: bytes) -> Row:
    try:
        return json.loads(line)
    except ValueError as error:
        raise ValueError(
            f"{path}, line {number}: damaged, not JSON ({error}). Delete the line: what it recorded will be made again."
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
            "Go back to the former settings, choose another output_dir, or delete this folder to start afresh."
        )


def _plain(value: Any) -> Any:
    """As it will read back from JSON, so that rows of this run and of an earlier one compare equal."""
    return json.loads(json.dumps(value))
