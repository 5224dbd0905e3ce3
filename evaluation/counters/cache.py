"""The cache of counter-metrics, a table beside the run: a sample whose files are unchanged is not measured again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.atomic import atomic_path
from evaluation.counters.clip import ClipCounters
from evaluation.counters.files import SampleFiles
from evaluation.counters.names import OF_A_CLIP

CACHE_NAME = "counter_metrics.parquet"
VERSION = "1"  # changes whenever a value could
_VERSION_KEY = "avdpo.counters"
_FIELDS = [pa.field("candidate_id", pa.string()), pa.field("identity", pa.string())]
_FIELDS += [pa.field(name, pa.float64()) for name in OF_A_CLIP]
_FIELDS += [pa.field(f"{kind}_features", pa.binary()) for kind in ("picture", "sound")]  # float16, flat
_SCHEMA = pa.schema(_FIELDS, metadata={_VERSION_KEY: VERSION})


class CounterCache:
    """Values and features of samples, read from `counter_metrics.parquet` and written back by `save`.

    Attributes:
        fault: why the last `save` failed; None if it did not.
    """

    def __init__(self, folder: Path) -> None:
        """Read the table in the folder of the run, if there is one of this version."""
        self.path = folder / CACHE_NAME
        self.fault: str | None = None
        self._rows: dict[tuple[str, str], dict[str, Any]] = {}
        table = _read(self.path)
        if table is not None:
            self._rows = {(row["candidate_id"], row["identity"]): row for row in table.to_pylist()}

    def __contains__(self, sample: SampleFiles) -> bool:
        return (sample.candidate_id, sample.identity) in self._rows

    def add(self, sample: SampleFiles, found: ClipCounters) -> None:
        """Keep what was measured of a sample. On disk after `save`."""
        row = {"candidate_id": sample.candidate_id, "identity": sample.identity, **found.values}
        row |= {"picture_features": found.picture.tobytes()}
        row |= {"sound_features": None if found.sound is None else found.sound.tobytes()}
        self._rows[sample.candidate_id, sample.identity] = row

    def values(self, sample: SampleFiles) -> list[float]:
        """Return the values of a sample in the order of `OF_A_CLIP`."""
        row = self._rows[sample.candidate_id, sample.identity]
        return [float("nan") if row[name] is None else row[name] for name in OF_A_CLIP]

    def features(self, sample: SampleFiles, kind: str) -> np.ndarray | None:
        """Return the flat float16 features of a sample's "picture" or "sound"; None for a clip without sound."""
        content = self._rows[sample.candidate_id, sample.identity][f"{kind}_features"]
        return None if content is None else np.frombuffer(content, dtype=np.float16)

    def save(self, samples: Sequence[SampleFiles]) -> None:
        """Write the rows of these samples; those of removed and changed files are dropped.

        A folder that cannot be written to is no reason to stop: what was measured is still used.
        """
        keys = ((sample.candidate_id, sample.identity) for sample in samples)
        table = pa.Table.from_pylist([self._rows[key] for key in keys if key in self._rows], _SCHEMA)
        try:
            with atomic_path(self.path) as temporary:
                pq.write_table(table, temporary, compression="zstd")
            self.fault = None
        except OSError as error:
            self.fault = f"{self.path} cannot be written ({error.strerror or error})"


def _read(path: Path) -> pa.Table | None:
    """Return the table, or None where it is absent, damaged or of another version: then it is made anew."""
    if not path.is_file():
        return None
    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid:
        return None
    version = (table.schema.metadata or {}).get(_VERSION_KEY.encode(), b"").decode()
    return table if version == VERSION and table.schema.names == _SCHEMA.names else None
