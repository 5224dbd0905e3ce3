"""Aligned text tables for the terminal and for text files."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, repeat

from tabulate import tabulate

_ALIGNMENTS = {"l": "left", "r": "right"}


def table_lines(rows: Sequence[Sequence[str]], align: str = "lr") -> list[str]:
    """Return the lines of a table whose columns are two spaces apart; the first row may be a header.

    Args:
        rows: cells as text, equally many in each row.
        align: "l" (left) or "r" (right) per column; the last letter also aligns all further columns. Names are aligned
            left, numbers right.
    """
    if not rows:
        return []
    columns = [_ALIGNMENTS[letter] for letter, _ in zip(chain(align, repeat(align[-1])), rows[0], strict=False)]
    # Digits stay as they were formatted, and indented cells stay indented.
    text = tabulate(rows, tablefmt="plain", colalign=columns, disable_numparse=True, preserve_whitespace=True)
    return [line.rstrip() for line in text.splitlines()]
