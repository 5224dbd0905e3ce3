"""Schemas of the tables between stages, and the validation that every stage applies to the tables it reads.

Columns are flat scalars and paths are relative to the table's own folder, so pandas opens a table without this package.
The Arrow metadata carries the table's name and version. Columns beyond the schema pass through.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.atomic import atomic_path
from core.storage import local_copy

VERSION = 1


def _schema(name: str, required: dict[str, pa.DataType], optional: dict[str, pa.DataType]) -> pa.Schema:
    fields = [pa.field(column, kind, nullable=False) for column, kind in required.items()]
    fields += [pa.field(column, kind) for column, kind in optional.items()]
    return pa.schema(fields, metadata={"avdpo.table": name, "avdpo.version": str(VERSION)})


def _ordered(schema: pa.Schema, *columns: str) -> pa.Schema:
    return pa.schema([schema.field(column) for column in columns], metadata=schema.metadata)


PROMPTS = _schema(
    "prompts",
    required={"prompt_id": pa.string(), "prompt": pa.string()},
    optional={"audio_prompt": pa.string(), "video_path": pa.string(), "audio_path": pa.string()},
)

# Nulls: seed and generation_s for ground truth; video_path and geometry for a candidate with an error.
# generation_s: seconds of the call that generated the clip over the number of its clips, without writing any; null too
# in tables of before it was recorded. The first call of a worker also loads the model.
# The Arrow metadata holds the trainings of the sampled model, in the form of core.lineage.
CANDIDATES = _ordered(
    _schema(
        "candidates",
        required={
            "candidate_id": pa.string(),
            "prompt_id": pa.string(),
            "prompt": pa.string(),
            "index": pa.int64(),
            "is_ground_truth": pa.bool_(),
        },
        optional={
            "audio_prompt": pa.string(),
            "seed": pa.int64(),
            "video_path": pa.string(),
            "audio_path": pa.string(),
            "latents_path": pa.string(),
            "num_frames": pa.int64(),
            "height": pa.int64(),
            "width": pa.int64(),
            "fps": pa.float64(),
            "sample_rate": pa.int64(),
            "duration_s": pa.float64(),
            "generation_s": pa.float64(),
            "error": pa.string(),
        },
    ),
    *("candidate_id", "prompt_id", "prompt", "audio_prompt", "index", "is_ground_truth", "seed"),
    *("video_path", "audio_path", "latents_path", "num_frames", "height", "width", "fps", "sample_rate"),
    *("duration_s", "generation_s", "error"),
)

# Besides these, one float64 column per metric. Its field metadata says `higher_is_better`, which `reward` made it, and
# what that one `needs`, as in "text video".
# `error`: something failed. `reasons`: why a score is null although nothing failed, as `column: reason` lines.
SCORES = _schema("scores", {"candidate_id": pa.string()}, {"error": pa.string(), "reasons": pa.string()})

FAILURES = _schema(
    "failures", {"candidate_id": pa.string(), "prompt_id": pa.string(), "error": pa.string()}, {"tries": pa.int64()}
)

_SIDE = {
    "candidate_id": pa.string(),
    "video_path": pa.string(),
    "audio_path": pa.string(),
    "latents_path": pa.string(),
    "is_ground_truth": pa.bool_(),
    "seed": pa.int64(),
}
_MODALITIES = ("video", "audio", "audio_video")


def pairs_schema(metrics: Iterable[str]) -> pa.Schema:
    """Return the schema PAIRS with these metric columns for the chosen and the rejected clip."""
    side = _SIDE | dict.fromkeys([*metrics, *(f"{name}_score" for name in _MODALITIES)], pa.float64())
    sides = {f"{prefix}_{column}": kind for prefix in ("chosen", "rejected") for column, kind in side.items()}
    margins = dict.fromkeys([*(f"margin_{name}" for name in _MODALITIES), "margin"], pa.float64())
    geometry = {name: CANDIDATES.field(name).type for name in GEOMETRY_COLUMNS}
    return _schema("pairs", {"prompt_id": pa.string(), "prompt": pa.string()}, sides | margins | geometry)


def keyed_pairs_schema(metrics: Iterable[str]) -> pa.Schema:
    """Return the schema of pairs with the key pair_id first, since a prompt may have several pairs."""
    schema = pairs_schema(metrics)
    return pa.schema([pa.field("pair_id", pa.string(), nullable=False), *schema], metadata=schema.metadata)


GEOMETRY_COLUMNS = ("num_frames", "height", "width", "fps", "sample_rate", "duration_s")
PAIRS = pairs_schema(())


def validate(table: pa.Table, schema: pa.Schema, path: str | Path) -> pa.Table:
    """Return `table` with the columns of `schema` first, in its types and order (absent optional ones null).

    Other columns follow. The first column is the key and must be unique. Rows in messages count from 0, as in pandas.

    Raises:
        ValueError: naming file, column and row, where a column is missing, of another type, null, nested, not finite,
            or a key is empty or not unique.
    """
    name, version = (
        schema.metadata[b"avdpo.table"].decode(),
        int((table.schema.metadata or {}).get(b"avdpo.version", 1)),
    )
    if version > VERSION:
        raise ValueError(
            f"{path} is a {name} table of version {version}, but this package knows them up to {VERSION}: update it."
        )
    columns = {field.name: _column(table, field, name, path) for field in schema}
    fields = list(schema)
    for field in table.schema:
        if field.name not in columns:
            _check_flat(table[field.name], field, path)
            if name == "scores":  # columns beyond its schema are metrics
                _check_finite(table[field.name], field, path)
            columns[field.name] = table[field.name]
            fields.append(field)
    _check_key(columns[schema.names[0]], schema.names[0], path)
    metadata = (table.schema.metadata or {}) | schema.metadata
    metadata.pop(b"pandas", None)  # describes a DataFrame that is no longer this table
    return pa.table(columns, schema=pa.schema(fields, metadata=metadata))


def read_table(path: Path, schema: pa.Schema, made_by: str) -> pa.Table:
    """Read and validate a Parquet table of an earlier stage; `made_by` is the command that a message names."""
    if not path.is_file():
        raise ValueError(f"{path} does not exist, and this stage reads it. Make it with `{made_by}`.")
    try:
        table = _read_parquet(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is not a readable Parquet file ({error}). Delete it and run `{made_by}`.") from error
    return validate(table, schema, path)


def write_table(table: pa.Table, schema: pa.Schema, path: Path) -> None:
    """Validate and write atomically, for pandas too. A file that holds exactly this table already is left untouched."""
    table = validate(table, schema, path)
    table = with_metadata(table, {"pandas": _pandas_metadata(table.schema)})
    if path.is_file() and _read_parquet(path).equals(table, check_metadata=True):
        return
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


def table_from_rows(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Return rows as a table of `schema`; keys that it lacks are dropped."""
    return pa.Table.from_pylist(rows, schema=schema)


def with_metadata(table: pa.Table, extra: dict[str, str]) -> pa.Table:
    """Return the table with further entries in its Arrow metadata."""
    return table.replace_schema_metadata((table.schema.metadata or {}) | extra)


def _read_parquet(path: Path) -> pa.Table:
    with local_copy(path) as file:
        return pq.read_table(file)


def _pandas_metadata(schema: pa.Schema) -> str:
    """Return metadata that makes pandas read integers as nullable Int64: its default with nulls, float64, rounds."""
    columns = [
        {"name": field.name, "field_name": field.name, "pandas_type": "int64", "numpy_type": "Int64", "metadata": None}
        for field in schema
        if pa.types.is_int64(field.type)
    ]
    return json.dumps({"index_columns": [], "column_indexes": [], "columns": columns, "pandas_version": "2.2.0"})


def _column(table: pa.Table, field: pa.Field, name: str, path: str | Path) -> pa.ChunkedArray:
    if field.name not in table.column_names:
        if not field.nullable:
            raise ValueError(
                f"{path} has no column {field.name!r}, which a {name} table needs (it has: "
                f"{', '.join(table.column_names)}). Add the column."
            )
        return pa.chunked_array([pa.nulls(len(table), field.type)])
    column = table[field.name]
    _check_flat(column, field, path)
    try:
        column = column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        row, value = _first_uncastable(column, field.type)
        raise ValueError(
            f"{path}, column {field.name!r}, row {row}: {value!r} is not a {field.type}. Correct the value."
        ) from error
    _check_finite(column, field, path)
    if not field.nullable and column.null_count:
        row = pc.index(column.is_null(), True).as_py()
        raise ValueError(f"{path}, column {field.name!r}, row {row}: is empty, but must have a value. Fill it in.")
    return column


def _first_uncastable(column: pa.ChunkedArray, kind: pa.DataType) -> tuple[int, Any]:
    for row in range(len(column)):
        try:
            column.slice(row, 1).cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return row, column[row].as_py()
    return 0, str(column.type)


def _check_flat(column: pa.ChunkedArray, field: pa.Field, path: str | Path) -> None:
    if pa.types.is_nested(column.type):
        raise ValueError(
            f"{path}, column {field.name!r}, row 0: holds {column.type}, but columns are flat scalars. "
            "Split it into one column per value, or drop it."
        )


def _check_finite(column: pa.ChunkedArray, field: pa.Field, path: str | Path) -> None:
    if pa.types.is_floating(column.type):
        finite = pc.is_finite(column).fill_null(True)
        if not pc.all(finite, min_count=0).as_py():
            row = pc.index(finite, False).as_py()
            raise ValueError(
                f"{path}, column {field.name!r}, row {row}: {column[row].as_py()} is not a finite number. "
                "Leave the value empty (null) where it is missing."
            )


def _check_key(column: pa.ChunkedArray, name: str, path: str | Path) -> None:
    if (empty := pc.index(pc.equal(column, ""), True).as_py()) >= 0:
        raise ValueError(f"{path}, column {name!r}, row {empty}: is empty, but must have a value. Fill it in.")
    if pc.count_distinct(column).as_py() == len(column):
        return
    first: dict[str, int] = {}
    for row, value in enumerate(column.to_pylist()):
        if value in first:
            raise ValueError(
                f"{path}, column {name!r}, row {row}: {value!r} stands in row {first[value]} already, but must be "
                "unique. Rename or remove one of them."
            )
        first[value] = row
