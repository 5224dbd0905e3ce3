"""Reader of prompts tables: CSV, JSONL or Parquet, with this project's columns or the published ones."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from core.schema import PROMPTS, validate
from core.storage import storage_path
from core.tables import PUBLISHED_HEADERS, TABLE_FILES, read_table


def read_prompts(path: str | Path) -> pa.Table:
    """Read the PROMPTS table; empty optional cells become null. Paths stay as written, relative to the table's folder.

    Raises:
        ValueError: naming file, column and row, when the table cannot be read or is not a prompts table.
    """
    path = storage_path(path)
    text_columns = {*PROMPTS.names, *PUBLISHED_HEADERS}
    table = read_table(path, text_columns, "prompts table", f"set `prompts` to a {TABLE_FILES}")
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
