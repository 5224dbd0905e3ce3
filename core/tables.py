"""Readers of user tables in CSV, JSONL or Parquet; errors name the line or row. Imports no torch."""

from __future__ import annotations

import bisect
import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from core.storage import local_copy, storage_path

TABLE_FILES = ".csv, .jsonl or .parquet file"

# Headers of the release's CSV files -> ours; their other columns pass through.
PUBLISHED_HEADERS = {"id": "prompt_id", "text": "prompt", "audio_text": "audio_prompt", "path": "video_path"}

_NO_FIT = (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError)  # what pa.array raises over a value


def read_table(
    path: str | Path, text_columns: Collection[str], kind: str, advice: str, lenient: bool = False
) -> pa.Table:
    """Read a table with the columns that the file has.

    Args:
        text_columns: columns read as text from CSV and JSONL even where cells look like numbers (an id such as 0017).
        kind: name of the expected table in messages: "prompts table".
        advice: what to give instead, for the message about an unsuitable file: a clause without a full stop.
        lenient: in JSONL, convert cells of text columns to text, and leave the columns that are not in `text_columns`
            empty. A cell of the wrong type then invalidates its row at most, not the table.

    Raises:
        ValueError: no such file, not one of these formats, or not readable as its format.
    """
    path = storage_path(path)
    suffix = path.suffix.lower()
    readers: dict[str, Callable[[Path], pa.Table]] = {
        ".csv": lambda file: _read_csv(file, text_columns),
        ".jsonl": lambda file: _read_jsonl(path, file.read_text(encoding="utf-8"), text_columns, lenient),
        ".parquet": pq.read_table,
    }
    if suffix not in readers:
        raise ValueError(f"{path} is no {kind} (suffix: {path.suffix or 'none'}): {advice}.")
    if not path.is_file():
        raise ValueError(f"{path} does not exist: {advice}.")
    try:
        with local_copy(path) as file:
            return readers[suffix](file)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as {suffix}: {error}. Correct the file.") from error


def _read_csv(path: Path, text_columns: Collection[str]) -> pa.Table:
    return pyarrow.csv.read_csv(
        path,
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(text_columns, pa.string())),
    )


def _read_jsonl(path: Path, text: str, text_columns: Collection[str], lenient: bool) -> pa.Table:
    rows = [
        _json_row(path, number, line)
        # Not splitlines: a caption may hold U+2028, which JSON leaves as it is.
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip()
    ]
    columns: dict[str, pa.Array] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        cells = [row.get(name) for row in rows]
        if name in text_columns:
            columns[name] = _array(path, name, [_text(cell, lenient) for cell in cells], pa.string())
        else:
            columns[name] = pa.nulls(len(rows)) if lenient else _array(path, name, cells, None)
    return pa.table(columns)


def _json_row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: not JSON ({error}). Write one object per line.") from error
    if not isinstance(row, dict):
        raise ValueError(f"{path}, line {number}: holds a {type(row).__name__}. Write one object per line.")
    return row


def _text(cell: Any, lenient: bool) -> Any:
    """Return a number as text; in strict reading other cells stay unchanged and are refused later."""
    return str(cell) if isinstance(cell, int | float) or (lenient and cell is not None) else cell


def _array(path: Path, name: str, cells: Sequence[Any], kind: pa.DataType | None) -> pa.Array:
    try:
        return pa.array(cells, type=kind)
    except _NO_FIT as error:
        row = bisect.bisect_left(range(len(cells)), True, key=lambda row: not _fit(cells[: row + 1], kind))
        raise ValueError(
            f"{path}, column {name!r}, row {row}: {cells[row]!r} does not fit the column ({error}). Correct the value."
        ) from error


def _fit(cells: Sequence[Any], kind: pa.DataType | None) -> bool:
    try:
        pa.array(cells, type=kind)
    except _NO_FIT:
        return False
    return True
