"""One-line summaries of columns: range, mean and histogram of numbers, distinct texts, lengths of lists."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

BARS = " \u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"  # an empty bin, then an eighth of a line to a whole one
_EXAMPLE_WIDTH = 40


@dataclass(frozen=True)
class ColumnFacts:
    num_null: int
    values: str


def column_facts(column: pa.ChunkedArray, bins: int = 16) -> ColumnFacts:
    """Summarise a column of any type. NaN is counted separately as not finite, not as empty."""
    kind = column.type
    present = column.drop_null() if column.null_count else column
    if not len(present):
        words = ""
    elif pa.types.is_boolean(kind):
        words = f"true {pc.mean(present.cast(pa.int8())).as_py():.1%}"
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        words = _numbers(present.to_numpy(), bins)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        words = _lists(present)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        words = _texts(present)
    else:
        words = "(type not summarised)"
    return ColumnFacts(column.null_count, words)


def histogram(values: np.ndarray, bins: int = 16) -> str:
    """Draw finite numbers (N,) as a line of bars from least to greatest; a bin that is not empty has a visible bar."""
    low, high = float(values.min()), float(values.max())
    if low == high:
        return ""
    counts, _ = np.histogram(values, bins=bins, range=(low, high))
    heights = np.ceil(counts / counts.max() * (len(BARS) - 1)).astype(int)
    return "".join(BARS[height] for height in heights)


def _numbers(values: np.ndarray, bins: int) -> str:
    exact = values.dtype.kind in "iu"
    numbers = values.astype(np.float64)
    finite = numbers[np.isfinite(numbers)]
    odd = f"  {len(numbers) - len(finite):,} not finite" if len(finite) < len(numbers) else ""
    if not len(finite):
        return odd.strip()
    ends = (values.min(), values.max()) if exact else (finite.min(), finite.max())  # float64 would round seeds
    low, high = (_number(end, exact) for end in ends)
    if ends[0] == ends[1]:
        return f"all {low}{odd}"
    middle = f"mean {finite.mean():.4g}, std {finite.std():.4g}"
    return f"{low} |{histogram(finite, bins)}| {high}  {middle}{odd}"


def _number(value: float, exact: bool) -> str:
    return f"{int(value)}" if exact else f"{value:.4g}"


def _texts(column: pa.ChunkedArray) -> str:
    distinct = pc.count_distinct(column).as_py()
    example = " ".join(column[0].as_py().split())
    short = example if len(example) <= _EXAMPLE_WIDTH else f"{example[: _EXAMPLE_WIDTH - 3]}..."
    return f"{distinct:,} distinct, such as {short!r}" if distinct > 1 else f"all {short!r}"


def _lists(column: pa.ChunkedArray) -> str:
    ends = pc.min_max(pc.list_value_length(column)).as_py()
    return f"length {ends['min']:,}" if ends["min"] == ends["max"] else f"length {ends['min']:,} to {ends['max']:,}"
