"""Reader and writer of the JavisDiT++ release's CSV files: reads rewards and DPO pairs, writes DPO pairs.

The release's tool joins candidates by row position and gives them no ids. Here ids come from file names:
`sample_0007-2.mp4` is candidate 2 of its prompt. The clip in `path` (rewards) or `relpath` (pairs) is the ground truth.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from core.atomic import atomic_path
from core.ids import GROUND_TRUTH_INDEX, candidate_id, stem
from core.schema import CANDIDATES, keyed_pairs_schema, validate
from core.storage import storage_path
from core.tables import read_table
from pipeline.rank.pairing import RANKED_METRICS
from pipeline.rank.pairs_folder import pair_ids
from rewards.metrics import METRIC_COLUMNS

PAIRS_HEADER = (
    *("path", "id", "relpath", "num_frames", "height", "width", "aspect_ratio", "fps", "resolution"),
    *("audio_path", "audio_id", "audio_fps", "text", "path_reject", "audio_path_reject"),
)
SOURCE_COLUMNS = ("relpath", "audio_id")  # describe the ground-truth clip; only the release's CSV uses them
_REWARDS = {  # published column -> column of this project
    "id": "prompt_id",
    "text": "prompt",
    "audio_text": "audio_prompt",
    "pred_video_path": "video_path",
    "pred_audio_path": "audio_path",
    "pred_num_frames": "num_frames",
    "pred_height": "height",
    "pred_width": "width",
    "pred_fps": "fps",
    "pred_audio_fps": "sample_rate",
    "relpath": "relpath",
    "audio_id": "audio_id",
    "desync_scores": "desync",
    **{name: name for name in METRIC_COLUMNS if name != "desync"},
}
_PAIRS = {
    "id": "prompt_id",
    "text": "prompt",
    "path": "chosen_video_path",
    "audio_path": "chosen_audio_path",
    "path_reject": "rejected_video_path",
    "audio_path_reject": "rejected_audio_path",
    "num_frames": "num_frames",
    "height": "height",
    "width": "width",
    "fps": "fps",
    "audio_fps": "sample_rate",
    "relpath": "relpath",
    "audio_id": "audio_id",
}
_TEXTS = (
    *("id", "text", "audio_text", "path", "audio_path", "relpath", "audio_id"),
    *("pred_video_path", "pred_audio_path", "path_reject", "audio_path_reject"),
)
_NUMBER_IN_NAME = r"(?:^|/|-)(0|[1-9]\d{0,5})\.[^./]+$"  # sample_0007-2.mp4, media/prompt-1a2b/2.mp4
_TRUTH_IN_NAME = r"(?:^|/)gt\.[^./]+$"  # name of the ground truth in this project's runs


def read_javisdit_rewards(path: str | Path) -> pd.DataFrame:
    """Read a published rewards CSV (`*_avreward.csv`): one row per candidate, ready for `pipeline.rank_pairs`.

    The columns are those of the candidates table, every metric of the CSV (`desync_scores` as `desync`), and `relpath`
    and `audio_id`, which `write_javisdit_pairs` needs. Paths are not changed. Missing scores are null.

    Raises:
        ValueError: the file is not such a CSV, a value has the wrong type, or two rows are the same candidate. The
            message names file, column and row.
    """
    path = storage_path(path)
    table = _read(path, {"id", "text", "path", "pred_video_path"}, "rewards table")
    if not any(_REWARDS.get(name) in RANKED_METRICS for name in table.column_names):
        raise ValueError(f"{path} has no scores such as visual_quality or desync_scores. Run the release's metrics.")
    frame = _renamed(table, _REWARDS)
    frame["is_ground_truth"] = table["path"].to_pandas() == frame["video_path"]
    frame["index"] = _indices(frame)
    frame["candidate_id"] = _candidate_ids(frame["prompt_id"], frame["index"])
    if {"num_frames", "fps"} <= set(frame):
        frame["duration_s"] = frame["num_frames"] / frame["fps"]
    return _typed(frame, CANDIDATES, path)


def read_javisdit_pairs(path: str | Path) -> pd.DataFrame:
    """Read a published DPO CSV as a pairs table (columns of `core.schema.pairs_schema`), without scores and margins.

    If a file name contains no candidate number, the path is the candidate id and the clip counts as generated.

    Raises:
        ValueError: the file is not such a CSV, or a value has the wrong type. The message names file, column and row.
    """
    path = storage_path(path)
    table = _read(path, {"id", "text", "path", "path_reject"}, "table of DPO pairs")
    frame = _renamed(table, _PAIRS)
    for side in ("chosen", "rejected"):
        is_truth, index = _read_file_names(frame[f"{side}_video_path"], frame.get("relpath"))
        names = pd.Series(_candidate_ids(frame["prompt_id"], index.fillna(GROUND_TRUTH_INDEX)), index=frame.index)
        frame[f"{side}_candidate_id"] = names.where(index.notna(), frame[f"{side}_video_path"])
        frame[f"{side}_is_ground_truth"] = is_truth
    if {"num_frames", "fps"} <= set(frame):
        frame["duration_s"] = frame["num_frames"] / frame["fps"]
    return _typed(frame.assign(pair_id=pair_ids(frame)), keyed_pairs_schema(()), path)


def write_javisdit_pairs(pairs: pd.DataFrame, path: str | Path, candidates: pd.DataFrame | None = None) -> None:
    """Write pairs as the release's DPO CSV, which its training reads. Paths are not changed.

    Args:
        candidates: the result of `read_javisdit_rewards`, or any table with prompt_id, `relpath` and `audio_id`. The
            latter two are taken from it if `pairs` lacks them. If both tables lack them, they are made from the
            prompt_id; the release's training reads neither.

    Raises:
        ValueError: the pairs lack a column or a value that the CSV needs.
    """
    _check_complete(pairs)
    sources = _sources(pairs, candidates)
    columns: dict[str, Any] = {published: pairs[ours] for published, ours in _PAIRS.items() if ours in pairs}
    columns |= {name: sources[name].to_numpy() for name in SOURCE_COLUMNS}
    columns["aspect_ratio"] = (pairs["height"] / pairs["width"]).round(4)
    columns["resolution"] = pairs["height"] * pairs["width"]
    columns["fps"] = _whole(pairs["fps"])
    frame = pd.DataFrame(columns, index=pairs.index).reindex(columns=list(PAIRS_HEADER))
    with atomic_path(path) as temporary:
        frame.to_csv(temporary, index=False)


def _read(path: Path, needed: set[str], kind: str) -> pa.Table:
    table = read_table(path, _TEXTS, f"published {kind}", "give the CSV of the release's tool")
    if missing := sorted(needed - set(table.column_names)):
        raise ValueError(
            f"{path} has no column {', '.join(missing)} (it has: {', '.join(table.column_names)}), so it is no "
            f"published {kind}."
        )
    if not table.num_rows:
        raise ValueError(f"{path} holds no rows.")
    return table


def _renamed(table: pa.Table, names: dict[str, str]) -> pd.DataFrame:
    known = [name for name in names if name in table.column_names]
    frame = table.select(known).rename_columns([names[name] for name in known]).to_pandas()
    texts = [name for name in ("audio_path", "audio_prompt", *SOURCE_COLUMNS) if name in frame]
    texts += [name for name in frame if name.endswith("_audio_path")]
    return frame.assign(**{name: frame[name].mask(frame[name] == "") for name in texts})


def _typed(frame: pd.DataFrame, schema: pa.Schema, path: Path) -> pd.DataFrame:
    table = validate(pa.Table.from_pandas(frame, preserve_index=False), schema, path)
    return table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)


def _indices(frame: pd.DataFrame) -> pd.Series[int]:
    """Return candidate numbers, from the file names or, if a name has none, from the order of paths in the prompt."""
    numbers = frame["video_path"].str.extract(_NUMBER_IN_NAME)[0].astype("float64")
    if numbers[~frame["is_ground_truth"]].isna().any():
        generated = frame["video_path"].mask(frame["is_ground_truth"])
        numbers = generated.groupby(frame["prompt_id"]).rank(method="dense") - 1
    return numbers.mask(frame["is_ground_truth"], GROUND_TRUTH_INDEX).astype("int64")


def _read_file_names(
    paths: pd.Series[str], relpaths: pd.Series[str] | None
) -> tuple[pd.Series[bool], pd.Series[float]]:
    """Return which clips are ground truth, and candidate numbers, null if a file name shows neither."""
    is_truth = paths.str.contains(_TRUTH_IN_NAME)
    if relpaths is not None:
        is_truth |= paths.str.rsplit("/", n=1).str[-1] == relpaths.str.rsplit("/", n=1).str[-1]
    numbers = paths.str.extract(_NUMBER_IN_NAME)[0].astype("float64")
    return is_truth, numbers.mask(is_truth, GROUND_TRUTH_INDEX)


def _candidate_ids(prompt_ids: pd.Series[str], indices: pd.Series[Any]) -> list[str]:
    return [candidate_id(prompt, int(index)) for prompt, index in zip(prompt_ids, indices, strict=True)]


def _check_complete(pairs: pd.DataFrame) -> None:
    needed = ("prompt_id", "prompt", "chosen_video_path", "rejected_video_path")
    for name in (*needed, "num_frames", "height", "width", "fps"):
        if name not in pairs or pairs[name].isna().any():
            raise ValueError(
                f"The pairs have no {name}, or not everywhere, and the published CSV needs it. Rank a candidates table "
                "that has it, or drop the rows that lack it."
            )


def _sources(pairs: pd.DataFrame, candidates: pd.DataFrame | None) -> pd.DataFrame:
    """Return `relpath` and `audio_id` of each pair's prompt."""
    ids = pairs["prompt_id"]
    found = pd.DataFrame({"relpath": [f"{stem(key)}.mp4" for key in ids], "audio_id": ids.to_numpy()}, index=ids.index)
    for name in SOURCE_COLUMNS:
        if name in pairs:
            found[name] = pairs[name].fillna(found[name])
        elif candidates is not None and name in candidates:
            by_prompt = candidates.drop_duplicates("prompt_id").set_index("prompt_id")[name]
            found[name] = ids.map(by_prompt).fillna(found[name])
    return found


def _whole(values: pd.Series[float]) -> pd.Series[Any]:
    """Return the values as integers if all are whole: the release writes 16, not 16.0."""
    numbers = values.to_numpy(np.float64)
    return values.astype("int64") if (numbers == np.round(numbers)).all() else values
