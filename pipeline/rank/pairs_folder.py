"""Pairs datasets on disk: read as one table, written as a whole or not at all, with paths adapted to the folder."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from core.atomic import atomic_folder
from core.storage import local_copy, relocation
from rewards.metrics import MODALITY_METRICS

SIDES = ("chosen", "rejected")
PATH_COLUMNS = ("video_path", "audio_path", "latents_path")
REPORT_NAME = "ranking.json"
STATE_NAME = "state.json"  # `datasets` recognises a dataset folder by this file
_NEEDED = tuple(f"{side}_{name}" for side in SIDES for name in ("candidate_id", "video_path"))


def is_dataset(folder: Path) -> bool:
    """Return whether `datasets.load_from_disk` recognises the folder."""
    return (folder / STATE_NAME).is_file()


def read_dataset(folder: Path) -> pa.Table:
    """Return all rows of a dataset folder, memory-mapped, without importing the `datasets` package.

    Raises:
        ValueError: the folder holds no dataset, or one of its files is missing or damaged.
    """
    if not is_dataset(folder):
        raise ValueError(
            f"{folder} holds no dataset (no state.json). Give a folder of `python -m pipeline.rank`, or of "
            "datasets.save_to_disk."
        )
    try:
        state = json.loads((folder / STATE_NAME).read_text(encoding="utf-8"))
        files = [folder / entry["filename"] for entry in state["_data_files"]]
        return pa.concat_tables([_read_stream(path) for path in files])
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise ValueError(f"{folder} is a damaged dataset ({error}). Make it again.") from error


def read_pairs(folder: Path) -> pd.DataFrame:
    """Read the pairs of a folder. Integer columns stay integers if values are missing.

    Raises:
        ValueError: the folder holds no pairs.
    """
    table = read_dataset(folder)
    if missing := [name for name in ("prompt_id", "prompt", *_NEEDED) if name not in table.column_names]:
        raise ValueError(
            f"{folder} lacks the columns {', '.join(missing)}, so it holds no pairs of pipeline.rank. Rank again."
        )
    return table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}.get)


def read_report(folder: Path) -> dict[str, Any]:
    """Return the report of ranking (`ranking.json`); empty if there is none."""
    path = folder / REPORT_NAME
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write_pairs(pairs: pd.DataFrame, folder: Path, report: dict[str, Any]) -> None:
    """Write pairs and their report (`ranking.json`) as a dataset in `folder`, replacing its content.

    Raises:
        ValueError: the table does not have the schema of pairs.
    """
    from pipeline.rank.pairs_table import write_dataset  # imported late: reading pairs does not need it

    pairs = pairs if "pair_id" in pairs else pairs.assign(pair_id=pair_ids(pairs))
    with atomic_folder(folder, last=STATE_NAME) as temporary:
        write_dataset(pairs, metrics_of(pairs.columns), temporary, name=folder)
        text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
        (temporary / REPORT_NAME).write_text(text, encoding="utf-8")


def pair_ids(pairs: pd.DataFrame) -> pd.Series[str]:
    """Build pair ids as ranking does: the winner's candidate_id, ">", the loser's candidate_id."""
    return pairs["chosen_candidate_id"] + ">" + pairs["rejected_candidate_id"]


def moved_paths(pairs: pd.DataFrame, old: Path, new: Path) -> pd.DataFrame:
    """Convert the pairs' paths from relative to `old` to relative to `new`. Absolute paths are not changed."""
    columns = [name for side in SIDES for name in (f"{side}_{column}" for column in PATH_COLUMNS) if name in pairs]
    return pairs.assign(**{name: moved(pairs[name], old, new) for name in columns})


def moved(paths: pd.Series[str], old: Path, new: Path) -> pd.Series[str]:
    """Convert paths relative to `old` to paths relative to `new`. Missing paths stay missing."""
    return paths.map(relocation(old, new), na_action="ignore")


def _read_stream(path: Path) -> pa.Table:
    with local_copy(path) as file:  # the mapping stays valid after a temporary file is deleted
        return pa.ipc.open_stream(pa.memory_map(str(file))).read_all()


def metrics_of(columns: Iterable[Any]) -> list[str]:
    """Return the metrics of a pairs table: columns of both sides other than ids, paths and modality scores."""
    names = list(map(str, columns))
    known = {*PATH_COLUMNS, "candidate_id", "is_ground_truth", "seed", *(f"{name}_score" for name in MODALITY_METRICS)}
    sides = [[name.removeprefix(f"{side}_") for name in names if name.startswith(f"{side}_")] for side in SIDES]
    return [name for name in sides[0] if name in sides[1] and name not in known]
