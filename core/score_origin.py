"""Which reward a column of scores came from, told by the table's metadata."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class ScoreOrigin:
    """A reward as it scored, and which of its columns: those of equal origin may be compared. None: not known."""

    column: str
    reward: str | None
    version: str | None = None
    weights: str | None = None


def origin_of(schema: pa.Schema, column: str) -> ScoreOrigin:
    """What the metadata of a column says; tables of before it said so tell where one reward made them all."""
    made_by = json.loads((schema.metadata or {}).get(b"avdpo.rewards", b"{}"))
    metadata = schema.field(column).metadata or {}
    stated = metadata.get(b"reward")
    name = stated.decode() if stated is not None else next(iter(made_by)) if len(made_by) == 1 else None
    known = made_by.get(name, {})
    own = metadata.get(b"column", column.encode()).decode()  # a table may have it by a name of its own
    return ScoreOrigin(own, name, known.get("version"), known.get("weights"))
