"""Values that were computed once, on disk: Parquet files in a folder per extractor, version and weights.

A row is one clip, by what it was computed from (`evaluation.file_keys`); rows are only ever added.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from media.atomic import atomic_path

Values = dict[str, np.ndarray]  # output -> (B,) scores or (B, width) features, float32
MAX_PARTS = 64  # then they are made one


class FeatureStore:
    """The values of one extractor.

    Args:
        folder: of this extractor alone; made when there is something to keep.
        outputs: output -> width of its features; None for a score.
    """

    def __init__(self, folder: Path, outputs: Mapping[str, int | None]) -> None:
        self.folder = folder
        self.outputs = dict(outputs)
        self._values: Values = {}
        self._places: dict[str, int] = {}
        self._pending: list[tuple[str, Mapping[str, np.ndarray]]] = []
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
        """Put on disk, and make readable, what was added."""
        pending = dict(self._pending)
        self._pending = []
        if pending:
            stacked = {
                name: np.stack([np.asarray(values[name], np.float32) for values in pending.values()])
                for name in self.outputs
            }
            self._write(list(pending), stacked)
            self._join(list(pending), stacked)

    def stack(self, output: str, keys: Sequence[str | None]) -> np.ndarray:
        """The values of clips, (N,) or (N, width); NaN where there are none, as for a key that is None."""
        width = self.outputs[output]
        found = np.full((len(keys),) if width is None else (len(keys), width), np.nan, np.float32)
        known = [(place, self._places[key]) for place, key in enumerate(keys) if key in self._places]
        if known:
            places, rows = np.array(known).T
            found[places] = self._values[output][rows]
        return found

    def _read(self) -> None:
        parts = sorted(self.folder.glob("part-*.parquet"))
        tables = [pq.read_table(part) for part in parts]
        for table in tables:
            keys = table["key"].to_pylist()
            self._join(keys, {name: _to_numpy(table[name], width) for name, width in self.outputs.items()})
        if len(parts) > MAX_PARTS:
            self._write(list(self._places), self._values)
            for part in parts:
                part.unlink()

    def _join(self, keys: Sequence[str], values: Values) -> None:
        start = len(self._values[next(iter(self.outputs))]) if self._values else 0
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
            columns[name] = flat if width is None else pa.FixedSizeListArray.from_arrays(flat, width)
        with atomic_path(self.folder / f"part-{uuid.uuid4().hex}.parquet") as path:
            pq.write_table(pa.table(columns), path)


def _to_numpy(column: pa.ChunkedArray, width: int | None) -> np.ndarray:
    values = column.combine_chunks()
    if width is None:
        return values.to_numpy(zero_copy_only=False)
    return values.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
