"""The journal: rows survive a kill, torn lines do no harm, and settings cannot change unnoticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.journal import Journal

SETTINGS = {"seed": 0, "steps": None}
ROWS = [{"id": "a\nb"}, {"id": "\u202e\U0001f600"}, {"score": 0.1}]


def write(path: Path, rows: list[dict]) -> None:
    with Journal(path, SETTINGS) as journal:
        first = journal.num_rows
        assert journal.append(rows) == range(first, first + len(rows))


def read(path: Path) -> list[dict]:
    return list(Journal(path, SETTINGS).rows())


def test_rows_come_back(tmp_path: Path) -> None:
    path = tmp_path / "stage" / "journal.jsonl"
    write(path, ROWS[:2])
    write(path, ROWS[2:])
    assert read(path) == ROWS


def test_a_file_cut_at_any_byte_gives_the_rows_before_the_cut_and_can_be_continued(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, ROWS)
    content = path.read_bytes()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        rows = read(path)
        assert rows == ROWS[: len(rows)]
        assert len(rows) == max(0, content[:size].count(b"\n") - 1)
        write(path, [{"id": "new"}])
        assert read(path) == [*rows, {"id": "new"}]


def test_opening_writes_nothing(tmp_path: Path) -> None:
    Journal(tmp_path / "stage" / "journal.jsonl", SETTINGS)
    assert not (tmp_path / "stage").exists()


def test_changed_settings_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, ROWS)
    with pytest.raises(ValueError, match=r"seed: 0 before, 1 now.*output_dir") as caught:
        Journal(path, SETTINGS | {"seed": 1})
    assert "steps" not in str(caught.value)


def test_damage_before_the_end_is_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, ROWS)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"\0\0\n", *lines[2:]]))
    with pytest.raises(ValueError, match=r"journal\.jsonl, line 3"):
        read(path)


def test_rows_of_this_run_are_read_beside_those_of_earlier_ones(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, ROWS[:1])
    with Journal(path, SETTINGS) as journal:
        journal.append(ROWS[1:])
        assert list(journal.rows()) == ROWS
