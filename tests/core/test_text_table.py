"""Aligned text tables."""

from __future__ import annotations

from core.text_table import table_lines


def test_names_are_aligned_left_and_numbers_right():
    rows = [("metric", "mean", "n"), ("desync", "0.5", "12"), ("  indented", "-10.25", "")]
    assert table_lines(rows) == [
        "metric        mean   n",
        "desync         0.5  12",
        "  indented  -10.25",
    ]


def test_digits_stay_as_they_are_given():
    assert table_lines([("a", "0.10", "1e-3", "007")], "lr") == ["a  0.10  1e-3  007"]


def test_alignment_is_given_by_column():
    assert table_lines([("a", "b", "verdict"), ("cc", "1", "w")], "rrl") == [" a  b  verdict", "cc  1  w"]


def test_no_rows_are_no_lines():
    assert table_lines([]) == []
