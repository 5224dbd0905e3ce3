"""JavisBench's taxonomy: five aspects with 19 categories, as its table numbers them (columns cat0_ind to cat4_ind)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

ASPECTS: dict[str, tuple[str, ...]] = {
    "Event scenario": ("Natural", "Urban", "Living", "Industrial", "Virtual"),
    "Visual style": ("Camera shooting", "2D animation", "3D animation"),
    "Sound type": ("Ambient", "Biological", "Mechanical", "Musical", "Speech"),
    "Spatial composition": ("Single subject", "Multiple subjects", "Off-screen sound"),
    "Temporal composition": ("Single event", "Sequential events", "Simultaneous events"),
}
PUBLISHED_COLUMNS = tuple(f"cat{number}_ind" for number in range(len(ASPECTS)))

Categories = dict[str, dict[str, np.ndarray]]  # aspect -> category -> numbers of the rows in it


def read_categories(table: pd.DataFrame, columns: Sequence[str]) -> Categories:
    """The rows of each category. A row may be in several of one aspect, or in none.

    Args:
        table: the benchmark's table.
        columns: columns that hold one value per row, each an aspect of its own; besides, the published columns are
            read where the table has them, with numbers such as "0" or "0,2".

    Raises:
        ValueError: there is no such column, or a published one holds a value that is not the number of a category.
    """
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise ValueError(
            f"The benchmark has no column {missing[0]!r} to group by. It has: {', '.join(map(str, table.columns))}."
        )
    found: Categories = {}
    for column, (aspect, names) in zip(PUBLISHED_COLUMNS, ASPECTS.items(), strict=True):
        if column in table.columns:
            found[aspect] = _published(table[column], names)
    for column in columns:
        values = table[column].astype("string")
        found[column] = {str(value): np.flatnonzero(values == value) for value in sorted(values.dropna().unique())}
    return found


def _published(column: pd.Series, names: Sequence[str]) -> dict[str, np.ndarray]:
    rows: dict[str, list[int]] = {name: [] for name in names}
    for row, cell in enumerate(column):
        if pd.isna(cell) or cell == "":
            continue
        for part in str(cell).split(","):
            rows[names[_number(part, column.name, row, len(names))]].append(row)
    return {name: np.asarray(members, dtype=np.int64) for name, members in rows.items()}


def _number(text: str, column: object, row: int, count: int) -> int:
    try:
        number = int(float(text))  # a column with empty cells is read as floats
    except ValueError:
        number = -1
    if not 0 <= number < count:
        raise ValueError(
            f"Column {column} of the benchmark has {text!r} in row {row}: give numbers from 0 to {count - 1}, "
            "separated by commas."
        )
    return number
