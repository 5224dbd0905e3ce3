"""The pairs table, with both sides of every pair, their scores and margins, and its form as a dataset folder."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from core.schema import keyed_pairs_schema, validate
from pipeline.rank.input import Candidates
from pipeline.rank.rules import MODALITIES
from rewards.metrics import MODALITY_METRICS

SIDE_COLUMNS = ("candidate_id", "video_path", "audio_path", "latents_path", "is_ground_truth", "seed")
SIZE_COLUMNS = ("height", "width")
LENGTH_COLUMNS = ("num_frames", "fps", "sample_rate", "duration_s")
CARRIED_COLUMNS = ("prompt", *SIDE_COLUMNS, *SIZE_COLUMNS, *LENGTH_COLUMNS)

Columns = dict[str, Any]


def pairs_frame(
    candidates: Candidates,
    scores: np.ndarray,
    prompts: np.ndarray,
    winners: np.ndarray,
    losers: np.ndarray,
    metrics: Sequence[str],
) -> pd.DataFrame:
    """Build the table of pairs, in the given order.

    Args:
        scores: (modalities, N) modality scores of the sorted candidates.
        prompts: (pairs,) number of the prompt.
        winners, losers: (pairs, 2) rows of the sorted candidates for picture and for sound.
        metrics: columns to carry over.
    """
    columns: Columns = {"pair_id": None, "prompt_id": candidates.prompt_ids.take(pa.array(prompts))}
    if "prompt" in candidates.table.column_names:
        columns["prompt"] = _take(candidates, "prompt", winners[:, 0])
    side_scores = []
    for side, rows in (("chosen", winners), ("rejected", losers)):
        values, modality_scores = _side(candidates, scores, rows, metrics)
        columns |= {f"{side}_{name}": column for name, column in values.items()}
        side_scores.append(modality_scores)
    columns["pair_id"] = _joined(columns["chosen_candidate_id"], columns["rejected_candidate_id"], ">")
    margins = side_scores[0] - side_scores[1]  # (modalities, pairs)
    columns |= {f"margin_{name}": pa.array(margins[k], from_pandas=True) for k, name in enumerate(MODALITIES)}
    columns["margin"] = np.nansum(margins, axis=0)
    table = pa.table(columns | _geometry(candidates, winners[:, 0], losers[:, 0]))
    return table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)  # float64 would round seeds


def write_dataset(pairs: pd.DataFrame, metrics: Sequence[str], folder: Path, name: Path) -> None:
    """Write pairs as a `datasets` folder. Error messages call the folder `name`.

    Raises:
        ValueError: a value does not fit the schema of pairs.
    """
    import datasets  # imported late: takes a second

    table = validate(pa.Table.from_pandas(pairs, preserve_index=False), keyed_pairs_schema(metrics), name)
    datasets.disable_progress_bars()
    if not table.num_rows:  # datasets needs a batch and a shard even for an empty table
        table = pa.Table.from_batches([pa.RecordBatch.from_pylist([], table.schema)])
    # Without a fingerprint, datasets would pickle and hash the whole table.
    dataset = datasets.Dataset(table, fingerprint=secrets.token_hex(8))
    dataset.save_to_disk(str(folder), num_shards=1 if not table.num_rows else None)


def _side(
    candidates: Candidates, scores: np.ndarray, rows: np.ndarray, metrics: Sequence[str]
) -> tuple[Columns, np.ndarray]:
    """Return one side's columns and modality scores (modalities, pairs); NaN if picture and sound differ in origin."""
    picture, sound = rows[:, 0], rows[:, 1]
    mixed = picture != sound
    audio_columns = ("audio_path", *MODALITY_METRICS["audio"])
    present = [name for name in (*SIDE_COLUMNS, *metrics) if name in candidates.table.column_names]
    columns = {name: _take(candidates, name, sound if name in audio_columns else picture) for name in present}
    modality_scores = scores[:, picture]
    modality_scores[MODALITIES.index("audio")] = scores[MODALITIES.index("audio"), sound]
    if mixed.any():
        modality_scores[MODALITIES.index("audio_video"), mixed] = np.nan
        mask = pa.array(mixed)
        both_ids = _joined(columns["candidate_id"], _take(candidates, "candidate_id", sound), "+")
        columns["candidate_id"] = pc.if_else(mask, both_ids, _text(columns["candidate_id"]))
        columns["is_ground_truth"] = pa.array(candidates.is_ground_truth[picture] | candidates.is_ground_truth[sound])
        for name in ("latents_path", "seed", *MODALITY_METRICS["audio_video"]):
            if name in columns:
                columns[name] = pc.if_else(mask, pa.scalar(None, columns[name].type), columns[name])
    columns |= {f"{name}_score": pa.array(modality_scores[k], from_pandas=True) for k, name in enumerate(MODALITIES)}
    return columns, modality_scores


def _geometry(candidates: Candidates, winners: np.ndarray, losers: np.ndarray) -> Columns:
    """Return the size of the clip with fewer pixels (on a tie the loser, as published) and the shorter length."""
    present = set(candidates.table.column_names)
    columns: Columns = {}
    if set(SIZE_COLUMNS) <= present:
        pixels = candidates.column("height") * candidates.column("width")
        rows = np.where(pixels[winners] < pixels[losers], winners, losers)
        columns |= {name: _take(candidates, name, rows) for name in SIZE_COLUMNS}
    if "num_frames" in present:
        frames = candidates.column("num_frames")
        rows = np.where(frames[winners] < frames[losers], winners, losers)
        columns |= {name: _take(candidates, name, rows) for name in LENGTH_COLUMNS if name in present}
    return columns


def _take(candidates: Candidates, name: str, rows: np.ndarray) -> pa.ChunkedArray:
    return candidates.table[name].take(pa.array(candidates.order[rows]))


def _joined(left: pa.ChunkedArray, right: pa.ChunkedArray, separator: str) -> pa.ChunkedArray:
    left, right = _text(left), _text(right)
    return pc.binary_join_element_wise(left, right, pa.scalar(separator, left.type))


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    return column if is_text else column.cast(pa.string())
