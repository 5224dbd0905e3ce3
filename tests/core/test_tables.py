"""The same rows from every format; a mistake is named to the line, or costs its row alone where that is asked for."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.tables import TABLE_FILES, read_table

ROWS = [
    {"id": "0017", "text": 'a "dog", barking', "frames": 81},
    {"id": "18", "text": "two\nlines", "frames": None},
    {"id": "19", "text": "one\u2028line", "frames": 33},
]
ADVICE = f"set `prompts` to a {TABLE_FILES}"


def read(path: Path, lenient: bool = False) -> pa.Table:
    return read_table(path, {"id", "text", "missing"}, "prompts table", ADVICE, lenient)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet", "T.JSONL"])
def test_the_same_rows_from_every_format(tmp_path: Path, name: str) -> None:
    frame = pa.Table.from_pylist(ROWS).to_pandas(integer_object_nulls=True)
    match Path(name).suffix.lower():
        case ".csv":
            frame.to_csv(tmp_path / name, index=False)
        case ".jsonl":
            frame.to_json(tmp_path / name, orient="records", lines=True, force_ascii=False)
        case _:
            pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / name)
    table = read(tmp_path / name)
    assert table.to_pylist() == ROWS
    assert table.column_names == ["id", "text", "frames"]


def test_numbers_in_text_columns_of_jsonl_are_text(tmp_path: Path) -> None:
    table = read(write(tmp_path / "t.jsonl", '{"id": 7, "frames": 81}\n\n{"id": 7.5, "text": "x"}\n'))
    assert table.to_pylist() == [{"id": "7", "frames": 81, "text": None}, {"id": "7.5", "frames": None, "text": "x"}]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.xlsx", "", r"t\.xlsx is no prompts table \(suffix: \.xlsx\): set `prompts` to a \.csv, \.jsonl or \.parq"),
        ("t", "", r"t is no prompts table \(suffix: none\): set `prompts`"),
        ("t.csv", "id,text\na,b,c\n", r"t\.csv cannot be read as \.csv: .*3.*Correct the file"),
        ("t.parquet", "no parquet", r"t\.parquet cannot be read as \.parquet: .*Correct the file"),
        ("t.jsonl", '{"id": 1}\n\nno json\n', r"t\.jsonl, line 3: not JSON .*one object per line"),
        ("t.jsonl", "[1]\n", r"t\.jsonl, line 1: holds a list.*one object per line"),
        ("t.jsonl", '{"text": "x"}\n{"text": ["x"]}\n', r"column 'text', row 1: \['x'\] does not fit"),
        ("t.jsonl", '{"text": "x"}\n{"text": "\\ud800"}\n', r"column 'text', row 1: '\\ud800' does not fit"),
        ("t.jsonl", '{"frames": 1}\n' * 3 + '{"frames": "x"}\n' * 2, r"column 'frames', row 3: 'x' does not fit"),
        ("t.jsonl", '{"frames": 1}\n{"frames": 9223372036854775808}\n', r"column 'frames', row 1: 9223372036854775808"),
    ],
)
def test_files_that_are_no_tables_say_why(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(write(tmp_path / name, text))


def test_a_file_that_is_not_there_and_one_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.csv does not exist: set `prompts` to a "):
        read(tmp_path / "none.csv")
    for name, content in (("t.csv", b"text\n\xff\n"), ("t.jsonl", b'{"text": "\xff"}\n')):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name} cannot be read as .*Correct the file"):
            read(tmp_path / name)


def test_lenient_reading_takes_the_text_of_any_cell_and_no_other_columns(tmp_path: Path) -> None:
    lines = ['{"id": 7, "text": ["x"], "tags": [1]}', '{"id": true, "text": null, "tags": "\\ud800"}']
    table = read(write(tmp_path / "t.jsonl", "\n".join(lines)), lenient=True)
    assert table.to_pylist() == [
        {"id": "7", "text": "['x']", "tags": None},
        {"id": "True", "text": None, "tags": None},
    ]
