"""Facts of a table for the terminal: metadata, and per column its type, empty cells, values and a histogram.

python -m pipeline.inspect runs/first/scores/scores.parquet --rows 2
python -m pipeline.inspect runs/first
"""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from core.cli import echo, parse_config
from core.schema import PROMPTS
from core.storage import StoragePath, is_local
from core.tables import PUBLISHED_HEADERS, read_table
from core.text_table import table_lines
from pipeline.inspect.columns import ColumnFacts, column_facts
from pipeline.rank.pairs_folder import REPORT_NAME, is_dataset, read_dataset

ABOUT = "Show what is in tables: metadata, columns, empty cells, values and histograms."
_TEXT_COLUMNS = {*PROMPTS.names, *PUBLISHED_HEADERS, "candidate_id", "pair_id", "annotator", "a", "b"}
_CELL_WIDTH = 48  # at least
_LIST_LENGTH = 6


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """Settings of `python -m pipeline.inspect`."""

    tables: list[StoragePath] = field(
        metadata={"help": "Parquet, CSV or JSONL files, dataset folders, or a run folder for all tables in it."}
    )
    rows: int = field(default=1, metadata={"help": "Number of first rows to show."})
    bins: int = field(default=16, metadata={"help": "Bars of a histogram."})

    def __post_init__(self) -> None:
        if self.rows < 0 or self.bins < 1:
            raise ValueError(f"rows is {self.rows} and bins {self.bins}, but they must be at least 0 and 1.")


@dataclass(frozen=True)
class Table:
    """A table whose columns are read on access, so that a large table needs little memory."""

    path: Path
    schema: pa.Schema
    num_rows: int
    column: Callable[[str], pa.ChunkedArray]
    head: Callable[[int], pa.Table]


def open_table(path: Path) -> Table:
    """Open a Parquet, CSV or JSONL file, or a folder of `datasets.save_to_disk`.

    Raises:
        ValueError: the path is none of these or cannot be read.
    """
    if is_dataset(path):
        return _in_memory(path, read_dataset(path))
    if path.suffix.lower() != ".parquet":
        advice = "give a .parquet, .csv or .jsonl file, a dataset folder or a run folder"
        return _in_memory(path, read_table(path, _TEXT_COLUMNS, "table", advice))
    if not path.is_file():
        raise ValueError(f"{path} does not exist, so it cannot be shown. Check the path.")
    try:
        # Only the parts of a remote table that are shown are downloaded.
        file = pq.ParquetFile(path if is_local(path) else path.open("rb"))
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is not a readable Parquet file ({error}). Make it again.") from error
    return Table(
        path,
        file.schema_arrow,
        file.metadata.num_rows,
        column=lambda name: file.read(columns=[name]).column(0),
        head=lambda rows: pa.Table.from_batches(itertools.islice(file.iter_batches(rows), 1), file.schema_arrow),
    )


def describe(table: Table, rows: int = 1, bins: int = 16) -> Iterator[str]:
    """Yield the lines that describe a table: its metadata, its columns and its first rows."""
    size = sum(path.stat().st_size for path in _files(table.path))
    yield f"{table.path}: {table.num_rows:,} rows, {len(table.schema)} columns, {size / 1e6:,.1f} MB"
    yield from _metadata_lines(table)
    yield ""
    lines = [("column", "type", "empty", "values")]
    for item in table.schema:
        facts = column_facts(table.column(item.name), bins)
        lines.append((item.name, _kind(item), _empty(facts, table.num_rows), facts.values))
    yield from table_lines(lines, "llrl")
    yield from _row_lines(table, rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status: 0, or 2 if a table cannot be read."""
    config = parse_config(InspectConfig, argv, positional="tables", about=ABOUT)
    try:
        for number, path in enumerate(found for given in config.tables for found in _tables_at(given)):
            if number:
                echo()
            for line in describe(open_table(path), config.rows, config.bins):
                echo(line)
    except (ValueError, OSError, pa.ArrowException) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except BrokenPipeError:  # `| head`
        return 0
    return 0


def _in_memory(path: Path, table: pa.Table) -> Table:
    return Table(path, table.schema, table.num_rows, table.column, lambda rows: table.slice(0, rows))


def _tables_at(path: Path) -> list[Path]:
    """Return the path itself or, for the folder of a run or a stage, the tables in it."""
    if not path.is_dir() or is_dataset(path):
        return [path]
    folders = [path, *sorted(child for child in path.iterdir() if child.is_dir())]
    tables = [folder for folder in folders if is_dataset(folder)]
    tables += [file for folder in folders for file in sorted(folder.glob("*.parquet")) if not is_dataset(folder)]
    order = ("prompts", "candidates", "scores", "pairs", "training")
    tables.sort(key=lambda table: order.index(table.stem) if table.stem in order else len(order))
    if not tables:
        raise ValueError(f"{path} holds no tables: neither a dataset nor a .parquet file, in it or one folder below.")
    return tables


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [file for file in path.iterdir() if file.is_file()]


def _metadata_lines(table: Table) -> Iterator[str]:
    """Yield this package's metadata of the table and, for pairs, the facts of their ranking."""
    for key, value in sorted((table.schema.metadata or {}).items()):
        name = key.decode(errors="replace")
        if name.startswith("avdpo."):
            yield f"  {name.removeprefix('avdpo.')}: {_metadata_value(value.decode(errors='replace'))}"
    path = table.path / REPORT_NAME
    if path.is_file():
        report = json.loads(path.read_text(encoding="utf-8"))
        for name in ("strategy", "ground_truth", "num_prompts", "num_pairs", "yield", "attrition"):
            if report.get(name) not in (None, {}):
                yield f"  {name}: {_plain(report[name])}"


def _metadata_value(text: str) -> str:
    try:
        return _plain(json.loads(text))
    except ValueError:
        return text


def _plain(value: Any) -> str:
    """Format a JSON value on one line, without nulls."""
    if isinstance(value, dict):
        cells = ((key, item, _plain(item)) for key, item in value.items() if item is not None)
        return ", ".join(f"{key} ({text})" if isinstance(item, dict) else f"{key} {text}" for key, item, text in cells)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _kind(item: pa.Field) -> str:
    return str(item.type).replace("list<item: ", "list<").replace("list<element: ", "list<")


def _empty(facts: ColumnFacts, num_rows: int) -> str:
    if not facts.num_null:
        return "-"
    share = facts.num_null / num_rows
    return f"{share:.1%}" if share >= 0.001 else "<0.1%"


def _row_lines(table: Table, rows: int) -> Iterator[str]:
    if not rows or not table.num_rows:
        return
    width = max(map(len, table.schema.names))
    room = max(shutil.get_terminal_size((160, 24)).columns - width - 4, _CELL_WIDTH)
    for number, row in enumerate(table.head(rows).slice(0, rows).to_pylist()):
        yield f"\nrow {number}"
        yield from table_lines([(f"  {name}", _cell(value, room)) for name, value in row.items()], "l")


def _cell(value: Any, room: int) -> str:
    if isinstance(value, list) and len(value) > _LIST_LENGTH:
        value = f"{[_cell(item, room) for item in value[:_LIST_LENGTH]]} ... ({len(value)} in all)".replace("'", "")
    text = "-" if value is None else f"{value:.6g}" if isinstance(value, float) else " ".join(str(value).split())
    return text if len(text) <= room else f"{text[: room - 3]}..."


if __name__ == "__main__":
    sys.exit(main())
