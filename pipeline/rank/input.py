"""The candidates to rank: checked, and sorted by prompt and index so that the order of rows does not matter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from rewards.metrics import HIGHER_IS_BETTER, MODALITY_METRICS

RANKED_METRICS = tuple(metric for metrics in MODALITY_METRICS.values() for metric in metrics)
SIGNS = np.array([1.0 if HIGHER_IS_BETTER[metric] else -1.0 for metric in RANKED_METRICS])
REWARD_OF_METRIC = {
    **dict.fromkeys(("visual_quality", "motion_quality"), "videoalign"),
    "audio_quality": "audiobox",
    **dict.fromkeys(("ib_tv", "ib_ta", "ib_av"), "imagebind"),
    "desync": "synchformer",
}
KEY_COLUMNS = ("candidate_id", "prompt_id", "index", "is_ground_truth")

PLACE_PAIRS_AT_ONCE = 2**15  # pairs of candidates per block: a few MB of margins, which fit in the CPU's cache


@dataclass(frozen=True, eq=False)
class Candidates:
    """N candidates of P prompts, sorted by prompt_id and index."""

    table: pa.Table  # as it was given
    order: np.ndarray  # (N,) row of the table for each sorted candidate
    prompt_ids: pa.Array  # (P,)
    counts: np.ndarray  # (P,) candidates of each prompt
    signed: np.ndarray  # (metrics, N) RANKED_METRICS with the sign that makes higher better; NaN if missing
    scored: np.ndarray  # (N,) whether all ranked metrics are present
    is_ground_truth: np.ndarray  # (N,)

    def column(self, name: str) -> np.ndarray:
        """Return a column of numbers (N,), NaN where empty."""
        return _numbers(self.table[name])[self.order]

    def is_number(self, name: str) -> bool:
        """Return whether the table has a column of numbers with this name."""
        if name not in self.table.column_names:
            return False
        kind = self.table.schema.field(name).type
        return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))

    def blocks(self) -> Iterator[Block]:
        """Iterate over all prompts in blocks of some thousands; prompts of a block have equally many candidates."""
        starts = np.cumsum(self.counts) - self.counts
        for count in np.unique(self.counts):
            prompts = np.flatnonzero(self.counts == count)
            size = max(1, PLACE_PAIRS_AT_ONCE // int(count) ** 2)
            for first in range(0, len(prompts), size):
                chosen = prompts[first : first + size]
                yield Block(chosen, starts[chosen] + np.arange(count)[:, None])


@dataclass(frozen=True, eq=False)
class Block:
    """B prompts with K candidates each."""

    prompts: np.ndarray  # (B,)
    rows: np.ndarray  # (K, B) sorted rows, by index


def read_candidates(table: pa.Table | pd.DataFrame, columns: Sequence[str]) -> Candidates:
    """Check and sort a table of candidates. Existing `columns` are kept beside keys and ranked metrics.

    Raises:
        ValueError: a column is missing, empty or not numeric, a score is infinite, or a candidate occurs twice.
    """
    names = [str(name) for name in (table.column_names if isinstance(table, pa.Table) else table.columns)]
    _check_columns(names)
    kept = [name for name in dict.fromkeys((*KEY_COLUMNS, *RANKED_METRICS, *columns)) if name in names]
    arrow = table.select(kept) if isinstance(table, pa.Table) else _from_pandas(table[kept])
    for name in KEY_COLUMNS:
        _check_filled(arrow, name)
    codes, prompt_ids = _codes(arrow["prompt_id"])
    indices = _cast(arrow, "index", pa.int64()).to_numpy()
    order = _order(codes, indices)
    _check_unique(arrow, codes, indices, order)
    signed = np.empty((len(RANKED_METRICS), len(order)))
    for k, metric in enumerate(RANKED_METRICS):
        np.multiply(_numbers(_cast(arrow, metric, pa.float64()))[order], SIGNS[k], out=signed[k])
    _check_finite(arrow, order, signed)
    return Candidates(
        table=arrow,
        order=order,
        prompt_ids=prompt_ids,
        counts=np.bincount(codes, minlength=len(prompt_ids)),
        signed=signed,
        scored=np.all(np.isfinite(signed), axis=0),
        is_ground_truth=_cast(arrow, "is_ground_truth", pa.bool_()).to_numpy()[order],
    )


def _check_columns(names: Sequence[str]) -> None:
    for column in KEY_COLUMNS:
        if column not in names:
            raise ValueError(f"The table to rank has no column {column!r} (it has: {', '.join(names)}). Add it.")
    missing = [metric for metric in RANKED_METRICS if metric not in names]
    if missing:
        rewards = dict.fromkeys(REWARD_OF_METRIC[metric] for metric in missing)
        raise ValueError(
            f"The table to rank lacks the metric {', '.join(missing)}, and ranking needs every ranked metric. "
            f"Score with the reward {' and '.join(rewards)} (or with verifiable, which yields all of them): "
            f"python -m pipeline.score --rewards {' '.join(rewards)}"
        )


def _from_pandas(frame: pd.DataFrame) -> pa.Table:
    try:
        return pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise ValueError(
            f"The table to rank has a column of mixed values ({error}). Give each column one type."
        ) from error


def _cast(table: pa.Table, name: str, kind: pa.DataType) -> pa.ChunkedArray:
    try:
        return table[name].cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"Column {name!r} of the table to rank does not hold {kind} ({error}). Correct it.") from error


def _check_filled(table: pa.Table, name: str) -> None:
    if table[name].null_count:
        row = pc.index(table[name].is_null(), True).as_py()
        raise ValueError(f"Column {name!r} of the table to rank is empty in row {row}. Fill it in.")


def _codes(prompt_ids: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Return the number of each row's prompt (N,) and the sorted prompt_ids (P,)."""
    if pa.types.is_dictionary(prompt_ids.type):
        prompt_ids = prompt_ids.cast(prompt_ids.type.value_type)
    if pa.types.is_null(prompt_ids.type):  # pandas gives a column without rows this type
        prompt_ids = prompt_ids.cast(pa.string())
    encoded = prompt_ids.dictionary_encode().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0)
    order = pc.sort_indices(encoded.dictionary)
    places = np.empty(len(order), np.int64)
    places[order.to_numpy()] = np.arange(len(order))
    return places[encoded.indices.to_numpy()], encoded.dictionary.take(order)


def _order(codes: np.ndarray, indices: np.ndarray) -> np.ndarray:
    step = np.diff(codes)
    if np.all(
        (step > 0) | ((step == 0) & (np.diff(indices) > 0))
    ):  # tables of pipeline.sample are sorted within a prompt
        return np.arange(len(codes))
    return np.lexsort((indices, codes))


def _check_unique(table: pa.Table, codes: np.ndarray, indices: np.ndarray, order: np.ndarray) -> None:
    twice = np.flatnonzero((np.diff(codes[order]) == 0) & (np.diff(indices[order]) == 0))
    if len(twice):
        name = table["candidate_id"][int(order[twice[0]])].as_py()
        raise ValueError(
            f"Candidate {name!r} occurs in the table to rank more than once (same prompt and index). "
            "Keep one row per candidate."
        )


def _check_finite(table: pa.Table, order: np.ndarray, signed: np.ndarray) -> None:
    for k, row in np.argwhere(np.isinf(signed))[:1]:
        name = table["candidate_id"][int(order[row])].as_py()
        raise ValueError(f"{RANKED_METRICS[k]} of candidate {name!r} is infinite. Leave a missing score empty.")


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    return column.cast(pa.float64()).to_numpy()
