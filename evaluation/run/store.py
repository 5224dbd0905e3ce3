"""Store of computed values on disk: Parquet files in a folder per judge, version and weights.

A row is one clip, by what it was computed from (`evaluation.run.file_keys`); rows are only ever added.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.atomic import atomic_path

Values = dict[str, np.ndarray]  # output -> (B,) scores or (B, width) features, float32
MAX_PARTS = 64  # more are merged into one
READ_TRIES = 3


class FeatureStore:
    """The values of one judge.

    Args:
        folder: of this judge alone; made when there is something to keep.
        outputs: output -> width of its features as published; None for a score. A smaller network's may be narrower.
    """

    def __init__(self, folder: Path, outputs: Mapping[str, int | None]) -> None:
        self.folder = folder
        self.outputs = dict(outputs)
        self._values: Values = {}
        self._places: dict[str, int] = {}
        self._pending: list[tuple[str, Mapping[str, np.ndarray]]] = []
        self._parts: list[Path] = []
        self._read()

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def add(self, key: str, values: Mapping[str, np.ndarray]) -> None:
        """Take the values of one clip: a number per score, (width,) per feature. On disk after `flush`."""
        if key not in self._places:
            self._pending.append((key, values))

    @property
    def num_pending(self) -> int:
        return len(self._pending)

    def flush(self) -> None:
        """Write the added values to disk, and make them readable."""
        pending = dict(self._pending)
        self._pending = []
        if pending:
            stacked = {
                name: np.stack([np.asarray(values[name], np.float32) for values in pending.values()])
                for name in self.outputs
            }
            self._write(list(pending), stacked)
            self._join(list(pending), stacked)
            self._compact()

    def stack(self, output: str, keys: Sequence[str | None]) -> np.ndarray:
        """Return the values of clips, (N,) or (N, width); NaN where there are none, as for a key that is None."""
        width = self.outputs[output]
        if output in self._values and width is not None:
            width = self._values[output].shape[1]
        found = np.full((len(keys),) if width is None else (len(keys), width), np.nan, np.float32)
        known = [(place, self._places[key]) for place, key in enumerate(keys) if key in self._places]
        if known:
            places, rows = np.array(known).T
            found[places] = self._values[output][rows]
        return found

    def _read(self) -> None:
        tables = self._tables()
        if tables:
            table = pa.concat_tables(tables)
            self._join(
                table["key"].to_pylist(), {name: _to_numpy(table[name], width) for name, width in self.outputs.items()}
            )

    def _tables(self) -> list[pa.Table]:
        for _ in range(READ_TRIES):
            self._parts = sorted(self.folder.glob("part-*.parquet"))
            try:
                return [pq.read_table(part) for part in self._parts]
            except FileNotFoundError:  # another run has just merged the parts
                continue
        raise ValueError(f"{self.folder} changes all the time: another run is at work in it. Wait until it is done.")

    def _compact(self) -> None:
        """Merge many parts into one. Parts that another run has written since are not known here, and stay."""
        if len(self._parts) > MAX_PARTS:
            old, self._parts = self._parts, []
            rows = list(self._places.values())  # a key that two runs have computed comes twice in the values
            self._write(list(self._places), {name: values[rows] for name, values in self._values.items()})
            for part in old:
                part.unlink(missing_ok=True)

    def _join(self, keys: Sequence[str], values: Values) -> None:
        start = len(next(iter(self._values.values()))) if self._values else 0
        self._places |= {key: start + number for number, key in enumerate(keys)}
        self._values = {
            name: np.concatenate([self._values[name], values[name]]) if self._values else values[name]
            for name in self.outputs
        }

    def _write(self, keys: Sequence[str], values: Values) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        columns: dict[str, pa.Array] = {"key": pa.array(keys, pa.string())}
        for name, width in self.outputs.items():
            flat = pa.array(values[name].ravel(), pa.float32())
            columns[name] = flat if width is None else pa.FixedSizeListArray.from_arrays(flat, values[name].shape[1])
        part = self.folder / f"part-{uuid.uuid4().hex}.parquet"
        with atomic_path(part) as path:
            pq.write_table(pa.table(columns), path)
        self._parts.append(part)


def _to_numpy(column: pa.ChunkedArray, width: int | None) -> np.ndarray:
    if width is None:
        return column.to_numpy()
    return np.concatenate(
        [chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, column.type.list_size) for chunk in column.chunks]
    )
