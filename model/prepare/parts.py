"""The files of a prepared dataset: parts of consecutive rows, their failures, and the index of the parts.

DIR/data/rows-<first row>.arrow holds the encoded rows of one part of the table, and rows-<first row>.json the rows that
could not be used. A part is written atomically, so that processes and machines share the work by parts, and a killed
process loses at most its current part. `state.json`, which the `datasets` package opens, lists the parts and is written
when all of them exist: nothing is copied.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.atomic import TEMPORARY_PREFIX, atomic_path, atomic_write_text
from model.data.latent_schema import COLUMNS, features_of

MIN_ROWS_PER_PART, MAX_PARTS = 32, 4096
ROWS_IN_MEMORY = 16  # 4 MB each for 81 frames of 480p
FAILURES_NAME = "failures.parquet"
DIED = "its process died each time it was tried"
_TYPES = {
    "bool": pa.bool_(),
    "string": pa.string(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float16": pa.float16(),
    "float32": pa.float32(),
    "float64": pa.float64(),
}

Row = dict[str, Any]  # a layout's columns, or its failure columns for an unusable row


@dataclass(frozen=True)
class RowLayout:
    """Columns of a prepared dataset."""

    item: str  # "clip", in messages
    columns: Mapping[str, str]  # name -> type, as in `model.data.latent_schema`
    failure_columns: tuple[str, ...]  # the first names the item, the last is "reason"

    @cached_property
    def schema(self) -> pa.Schema:
        return pa.schema([(column, _type(name)) for column, name in self.columns.items()])


CLIPS = RowLayout("clip", COLUMNS, ("clip_id", "path", "reason"))


class Parts:
    """Parts of a prepared folder, made from a table of `num_rows` rows, each of which may give several dataset rows."""

    def __init__(self, folder: Path, num_rows: int, rows_per_part: int, layout: RowLayout = CLIPS) -> None:
        self.folder = folder
        self.num_rows = num_rows
        self.rows_per_part = rows_per_part
        self.layout = layout

    @property
    def starts(self) -> range:
        """The first row of every part, which identifies the part."""
        return range(0, self.num_rows, self.rows_per_part)

    def rows(self, start: int) -> range:
        """Return the table's rows of a part."""
        return range(start, min(start + self.rows_per_part, self.num_rows))

    def missing(self) -> list[int]:
        """Return the parts that do not exist yet."""
        return [start for start in self.starts if not self._part(start).is_file()]

    def write(self, start: int, rows: Iterable[Row]) -> None:
        """Write a part.

        Args:
            rows: encoded or failed rows in the order of the table, consumed lazily.
        """
        failures: list[Row] = []
        with atomic_path(self._part(start)) as path:
            with pa.ipc.new_stream(str(path), self.layout.schema) as writer:
                for batch in _batches(rows, failures):
                    writer.write_batch(_record_batch(batch, self.layout))
            # Written before the part gets its final name, which shows that both are complete.
            atomic_write_text(self._failures(start), json.dumps(failures, ensure_ascii=False))

    def make(
        self,
        start: int,
        encode: Callable[[int], Iterable[Row]],
        give_up: Callable[[int], Iterable[Row]],
        given_up: Collection[int] = (),
        progress: Callable[[int], Any] = lambda _: None,
    ) -> None:
        """Write a part from the result of `encode` for each row, or of `give_up` for rows in `given_up`."""
        trying = self.trying(start)
        trying.parent.mkdir(parents=True, exist_ok=True)

        def rows() -> Iterator[Row]:
            for number in self.rows(start):
                trying.write_text(str(number), encoding="ascii")
                made = list(give_up(number) if number in given_up else encode(number))
                yield from made
                progress(len(made))

        self.write(start, rows())
        trying.unlink(missing_ok=True)

    def failures(self, starts: Iterable[int] | None = None) -> list[Row]:
        """Return the failures of these existing parts (default: all), in the order of the table."""
        starts = self.starts if starts is None else starts
        found = [self._failures(start) for start in starts if self._part(start).is_file()]
        return [failure for path in found for failure in json.loads(path.read_text(encoding="utf-8"))]

    def forget_failures(self) -> None:
        """Remove the index and the parts with failures, so that their rows are tried again."""
        for name in ("summary.json", "state.json"):
            (self.folder / name).unlink(missing_ok=True)
        for start in self.starts:
            if self._part(start).is_file() and json.loads(self._failures(start).read_text(encoding="utf-8")):
                self._part(start).unlink()

    def publish(self, settings: Mapping[str, Any]) -> None:
        """Write the index that makes the parts a dataset, and failures.parquet. Publishing twice is harmless.

        Raises:
            ValueError: no row could be used.
        """
        failures, names = self.failures(), self.layout.failure_columns
        schema = pa.schema([(name, pa.string()) for name in names])
        table = pa.table({name: [one[name] for one in failures] for name in names}, schema=schema)
        with atomic_path(self.folder / FAILURES_NAME) as path:
            pq.write_table(table, path)
        filled = [start for start in self.starts if self._has_rows(start)]
        if not filled:
            raise ValueError(
                f"None of the {len(failures)} {self.layout.item}s can be used, such as {failures[0][names[0]]}: "
                f"{failures[0]['reason']}. All are in {self.folder / FAILURES_NAME}: repair the files and add "
                "--retry_failed, or give another table and another output folder."
            )
        files = [{"filename": self._part(start).relative_to(self.folder).as_posix()} for start in filled]
        identity = hashlib.blake2b(json.dumps([dict(settings), failures]).encode(), digest_size=8).hexdigest()
        info, state = _empty_dataset(self.layout)
        state |= {"_data_files": files, "_fingerprint": identity}
        atomic_write_text(self.folder / "dataset_info.json", json.dumps(info, indent=2) + "\n")
        atomic_write_text(self.folder / "state.json", json.dumps(state, indent=2) + "\n")
        for leftover in (self.folder / "data").glob(f"{TEMPORARY_PREFIX}*"):
            leftover.unlink(missing_ok=True)  # of killed processes; every part exists, so no process writes

    def trying(self, start: int) -> Path:
        """Return the file that holds the row at which a process works on a part; empty before its first row."""
        return self.folder / "data" / f"{TEMPORARY_PREFIX}trying-{start:08d}"

    def record_attempt(self, start: int) -> Counter[int | None]:
        """Record that a process takes a part up, and return how many processes died on it, by row.

        A process whose `trying` file is still there has died; None stands for a death before the first row.
        """
        trying, path = self.trying(start), self._deaths(start)
        deaths = json.loads(path.read_text(encoding="ascii")) if path.is_file() else []
        if trying.is_file():
            row = trying.read_text(encoding="ascii")
            deaths.append(int(row) if row else None)
            atomic_write_text(path, json.dumps(deaths))
        trying.parent.mkdir(parents=True, exist_ok=True)
        trying.write_text("", encoding="ascii")
        return Counter(deaths)

    def forget_deaths(self, start: int) -> None:
        """Remove the record of processes that died on a part."""
        for path in (self.trying(start), self._deaths(start)):
            path.unlink(missing_ok=True)

    def _has_rows(self, start: int) -> bool:
        with pa.memory_map(str(self._part(start))) as source:
            return any(batch.num_rows for batch in pa.ipc.open_stream(source))

    def _part(self, start: int) -> Path:
        return self.folder / "data" / f"rows-{start:08d}.arrow"

    def _deaths(self, start: int) -> Path:
        return self.folder / "data" / f"{TEMPORARY_PREFIX}deaths-{start:08d}"

    def _failures(self, start: int) -> Path:
        return self._part(start).with_suffix(".json")


def choose_rows_per_part(num_rows: int) -> int:
    """Return the rows of a part: few, so that a killed run loses little, but at most `MAX_PARTS` files result."""
    return max(MIN_ROWS_PER_PART, -(-num_rows // MAX_PARTS))


def _type(name: str) -> pa.DataType:
    if name.startswith("list<"):
        return pa.list_(_type(name[5:-1]))
    return _TYPES[name]


def _batches(rows: Iterable[Row], failures: list[Row]) -> Iterator[list[Row]]:
    """Yield rows in batches of `ROWS_IN_MEMORY`; failures are appended to `failures`."""
    batch: list[Row] = []
    for row in rows:
        if "reason" in row:
            failures.append(row)
            continue
        batch.append(row)
        if len(batch) == ROWS_IN_MEMORY:
            yield batch
            batch = []
    if batch:
        yield batch


def _record_batch(rows: list[Row], layout: RowLayout) -> pa.RecordBatch:
    columns = {name: [row[name] for row in rows] for name in layout.columns}
    arrays = [
        _list_array(columns[name]) if kind == "list<float16>" else pa.array(columns[name], _type(kind))
        for name, kind in layout.columns.items()
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=layout.schema)


def _list_array(arrays: list[np.ndarray]) -> pa.Array:
    offsets = np.cumsum([0] + [len(array) for array in arrays], dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, np.concatenate(arrays))


def _empty_dataset(layout: RowLayout) -> list[dict[str, Any]]:
    """Return the content of dataset_info.json and state.json as the `datasets` package writes them."""
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    features = features_of(layout.columns)
    with tempfile.TemporaryDirectory() as folder:
        Dataset.from_dict({name: [] for name in features}, features=features).save_to_disk(folder)
        names = ("dataset_info.json", "state.json")
        return [json.loads((Path(folder) / name).read_text(encoding="utf-8")) for name in names]
