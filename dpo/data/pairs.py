"""The table of preference pairs, selected by ranking or by people, from which training data is prepared.

Imports neither torch nor datasets.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from core.lineage import LINEAGE_KEY, UNKNOWN, Lineage
from core.storage import file_sizes, local_copy, resolve_in
from dpo.data.schema import SIDES

PREFIXES = tuple(f"{side}_" for side in SIDES)
GEOMETRY = ("num_frames", "height", "width", "fps")
SIDE_COLUMNS = ("candidate_id", "video_path", "audio_path", "latents_path")
_NEEDED = ("prompt_id", "prompt", *(f"{side}_{name}" for side in SIDES for name in ("candidate_id", "video_path")))
_OPTIONAL = (
    "pair_id",
    "margin",
    *GEOMETRY,
    *(f"{side}_{name}" for side in SIDES for name in ("audio_path", "latents_path", "seed")),
)

PairRow = dict[str, Any]  # the columns above; None for columns that the table lacks


def read_pairs(folder: Path) -> list[PairRow]:
    """Read the pairs in a folder written by `pipeline.rank`, or from people's labels, grouped by prompt.

    Prompts are in the order of their first row, and the pairs of a prompt in the order of the table.

    Raises:
        ValueError: if there is no dataset or no pairs, a column is missing, or two pairs have the same id.
    """
    state = folder / "state.json"
    if not state.is_file():
        raise ValueError(f"{folder} holds no pairs dataset: make one with `python -m pipeline.rank`.")
    files = [folder / entry["filename"] for entry in json.loads(state.read_text(encoding="utf-8"))["_data_files"]]
    try:
        tables = [_read_stream(path) for path in files]
    except (OSError, pa.ArrowInvalid) as error:
        raise ValueError(f"{folder} is a damaged dataset ({error}): make it again.") from error
    rows = [_complete(row) for table in tables for row in _select(table, folder).to_pylist()]
    if not rows:
        raise ValueError(
            f"{folder} has no pairs, so there is nothing to train on: {folder / 'ranking.json'} gives the reason per "
            "prompt; sample more prompts or candidates."
        )
    _check_unique(rows, folder)
    return [pair for pairs in by_prompt(rows) for pair in pairs]


def pairs_lineage(folder: Path) -> Lineage:
    """Read the rewards or annotators that selected the winners from a folder's ranking.json; UNKNOWN without it."""
    path = folder / "ranking.json"
    if not path.is_file():
        return UNKNOWN
    return Lineage.from_dict(json.loads(path.read_text(encoding="utf-8")).get(LINEAGE_KEY), path)


def by_prompt(pairs: Iterable[PairRow]) -> list[list[PairRow]]:
    """Group pairs by prompt, in the order of first occurrence."""
    groups: dict[str, list[PairRow]] = {}
    for pair in pairs:
        groups.setdefault(pair["prompt_id"], []).append(pair)
    return list(groups.values())


def fingerprint(pairs: Sequence[PairRow]) -> str:
    """Return sixteen hex digits that change with any column of the pairs."""
    digest = hashlib.blake2b(digest_size=8)
    for pair in pairs:
        digest.update(json.dumps(pair, sort_keys=True).encode())
    return digest.hexdigest()


def missing_files(root: Path, rows: Iterable[PairRow], prefixes: Sequence[str] = PREFIXES) -> list[list[Path]]:
    """Return, per row, the files that it names but that do not exist.

    Args:
        root: folder to which the paths in the table are relative.
        rows: pairs; with the prefix "", candidates.
        prefixes: beginnings of the names of the clips' columns.
    """
    size_of = file_sizes(root)
    names = ([name for prefix in prefixes for name in clip_files(row, prefix)] for row in rows)
    return [[resolve_in(root, name) for name in of_row if size_of(name) is None] for of_row in names]


def clip_files(row: PairRow, prefix: str) -> list[str]:
    """Return the files of a clip: the latents that the sampler kept, else the picture and the sound if it is apart."""
    kept = row[f"{prefix}latents_path"]
    return (
        [kept] if kept else [row[f"{prefix}{name}"] for name in ("video_path", "audio_path") if row[f"{prefix}{name}"]]
    )


def _read_stream(path: Path) -> pa.Table:
    with local_copy(path) as file:  # the mapped data stays valid after a temporary file is deleted
        return pa.ipc.open_stream(pa.memory_map(str(file))).read_all()


def _select(table: pa.Table, folder: Path) -> pa.Table:
    missing = [name for name in _NEEDED if name not in table.column_names]
    if missing:
        raise ValueError(f"{folder} lacks the columns {', '.join(missing)}: make it with `python -m pipeline.rank`.")
    return table.select([name for name in (*_NEEDED, *_OPTIONAL) if name in table.column_names])


def _complete(row: PairRow) -> PairRow:
    """Add the missing columns as None; a missing pair_id is composed in the same way as by ranking."""
    pair_id = row.get("pair_id") or f"{row['chosen_candidate_id']}>{row['rejected_candidate_id']}"
    return dict.fromkeys(_OPTIONAL) | row | {"pair_id": pair_id}


def _check_unique(rows: Sequence[PairRow], folder: Path) -> None:
    seen: set[str] = set()
    for row in rows:
        if row["pair_id"] in seen:
            raise ValueError(f"{folder} has the pair {row['pair_id']!r} twice: remove one of its rows.")
        seen.add(row["pair_id"])
