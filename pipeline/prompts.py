"""Read a prompts table from CSV, JSONL or Parquet, in this project's columns or in the published ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from pipeline.schema import PROMPTS, validate

# Headers of the published CSV files -> ours. Their other columns pass through.
PUBLISHED_HEADERS = {"id": "prompt_id", "text": "prompt", "audio_text": "audio_prompt", "path": "video_path"}


def read_prompts(path: str | Path) -> pa.Table:
    """The PROMPTS table; empty optional cells are null. Paths stay as written: relative to the table's folder.

    Raises:
        ValueError: naming file, column and row, when the table cannot be read or is not a prompts table.
    """
    path = Path(path)
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": pq.read_table}
    if path.suffix.lower() not in readers:
        raise ValueError(
            f"{path}: a prompts table is a {', '.join(readers)} file, not {path.suffix or 'one without suffix'}."
        )
    if not path.is_file():
        raise ValueError(f"{path} does not exist. Set `prompts` to a {', '.join(readers)} file.")
    try:
        table = readers[path.suffix.lower()](path)
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as {path.suffix}: {error}. Correct the file.") from error
    table = validate(_with_our_headers(table), PROMPTS, path)
    if len(table) == 0:
        raise ValueError(f"{path} holds no prompts. Add at least one row.")
    return _empty_to_null(table)


def _with_our_headers(table: pa.Table) -> pa.Table:
    names = table.column_names
    return table.rename_columns(
        [PUBLISHED_HEADERS[name] if PUBLISHED_HEADERS.get(name, name) not in names else name for name in names]
    )


def _empty_to_null(table: pa.Table) -> pa.Table:
    for position, field in enumerate(table.schema):
        if field.name in PROMPTS.names and field.nullable:
            column = table[field.name]
            table = table.set_column(
                position, field, pc.if_else(pc.equal(column, ""), pa.scalar(None, field.type), column)
            )
    return table


def _read_csv(path: Path) -> pa.Table:
    text_columns = dict.fromkeys([*PROMPTS.names, *PUBLISHED_HEADERS], pa.string())  # ids such as 0017 stay text
    return pyarrow.csv.read_csv(
        path,
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(column_types=text_columns),
    )


def _read_jsonl(path: Path) -> pa.Table:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if line.strip():
            rows.append(_json_row(path, number, line))
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: _json_column(path, name, [row.get(name) for row in rows]) for name in names})


def _json_row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: not JSON ({error}). Write one object per line.") from error
    if not isinstance(row, dict):
        raise ValueError(f"{path}, line {number}: holds {type(row).__name__}. Write one object per line.")
    return row


def _json_column(path: Path, name: str, values: list[Any]) -> pa.Array:
    is_text = name in PROMPTS.names or name in PUBLISHED_HEADERS
    if is_text:
        values = [str(value) if isinstance(value, int | float) else value for value in values]
    try:
        return pa.array(values, type=pa.string() if is_text else None)
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError) as error:
        row = next(row for row in range(len(values)) if not _converts(values[: row + 1], is_text))
        raise ValueError(
            f"{path}, column {name!r}, row {row}: {values[row]!r} does not fit the column ({error}). Correct the value."
        ) from error


def _converts(values: list[Any], is_text: bool) -> bool:
    try:
        pa.array(values, type=pa.string() if is_text else None)
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError):
        return False
    return True
