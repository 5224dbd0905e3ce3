"""The reward that made a column of scores, read from the table's metadata."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class ScoreOrigin:
    """A reward with its version and weights, and one of its columns; equal origins are comparable. None: unknown."""

    column: str
    reward: str | None
    version: str | None = None
    weights: str | None = None


def origin_of(schema: pa.Schema, column: str) -> ScoreOrigin:
    """Return the origin of a column from its metadata, or from the table's where one reward made all columns.

    Older tables have no metadata per column.
    """
    made_by = json.loads((schema.metadata or {}).get(b"avdpo.rewards", b"{}"))
    metadata = schema.field(column).metadata or {}
    stated = metadata.get(b"reward")
    name = stated.decode() if stated is not None else next(iter(made_by)) if len(made_by) == 1 else None
    known = made_by.get(name, {})
    own = metadata.get(b"column", column.encode()).decode()  # a table may rename the column
    return ScoreOrigin(own, name, known.get("version"), known.get("weights"))
