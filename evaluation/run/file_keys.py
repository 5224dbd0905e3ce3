"""Keys of stored values: digests of the files' contents, and of the texts where the judge needs them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from core.atomic import atomic_path

NUM_READERS = 8
_CHUNK_BYTES = 1 << 20
_SCHEMA = pa.schema({"path": pa.string(), "size": pa.int64(), "mtime_ns": pa.int64(), "digest": pa.string()})


class FileDigests:
    """Digests of files' contents. A file of the same size and time as before `save` is not read again."""

    def __init__(self, path: Path) -> None:
        """`path`: the Parquet file that keeps them."""
        self._path = path
        rows = pq.read_table(path).to_pylist() if path.is_file() else []
        self._known = {row["path"]: (row["size"], row["mtime_ns"], row["digest"]) for row in rows}
        self._is_saved = True

    def of(self, files: Iterable[str]) -> dict[str, str]:
        """Return path -> digest of every file that exists."""
        names = list(dict.fromkeys(files))
        with ThreadPoolExecutor(NUM_READERS) as pool:
            found = dict(zip(names, pool.map(self._digest, names), strict=True))
        fresh = {name: entry for name, entry in found.items() if entry and self._known.get(name) != entry}
        if fresh:
            self._known |= fresh
            self._is_saved = False
        return {name: entry[2] for name, entry in found.items() if entry}

    def _digest(self, name: str) -> tuple[int, int, str] | None:
        try:
            status = os.stat(name)
            known = self._known.get(name)
            if known and known[:2] == (status.st_size, status.st_mtime_ns):
                return known
            return status.st_size, status.st_mtime_ns, _read_digest(name)
        except OSError:
            return None  # reported when it is decoded

    def save(self) -> None:
        """Keep them on disk, where there is anything new."""
        if self._is_saved:
            return
        rows = [(name, *entry) for name, entry in self._known.items()]
        columns = [pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), _SCHEMA, strict=True)]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(self._path) as temporary:
            pq.write_table(pa.table(columns, schema=_SCHEMA), temporary)
        self._is_saved = True


def value_key(video: str | None, audio: str | None, texts: Sequence[str | None], needs: frozenset[str]) -> str | None:
    """Return the key of a judge's values of one clip; None without a video file.

    Both files count whatever the judge needs: a clip whose picture cannot be read has no sound either, so
    results do not depend on the content of the cache.

    Args:
        video: digest of the video file, which holds the sound too where there is no file for it.
        audio: digest of the audio file.
        texts: caption, and caption of the sound.
        needs: of the judge.
    """
    if video is None:
        return None
    parts = [video, audio or ""]
    if "text" in needs:
        parts += [text or "" for text in texts]
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


def _read_digest(name: str) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with open(name, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
