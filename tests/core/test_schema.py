"""Tables at the boundary of a stage: what is accepted, and how a mistake is named."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.prompts import read_prompts
from core.schema import CANDIDATES, PROMPTS, SCORES, pairs_schema, read_table, validate, write_table
from tests.pipeline.fakes import HOSTILE


def candidates(**changes: list) -> pa.Table:
    columns: dict[str, list] = {
        "candidate_id": ["a/0", "a/1"],
        "prompt_id": ["a", "a"],
        "prompt": ["one", "one"],
        "index": [0, 1],
        "is_ground_truth": [False, False],
    }
    return pa.table(columns | changes)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_the_same_prompts_from_every_format(suffix: str, tmp_path: Path) -> None:
    frame = pd.DataFrame({"prompt_id": [f"{n:03d}{text}" for n, text in enumerate(HOSTILE)], "prompt": HOSTILE})
    frame = frame.assign(video_path="", audio_prompt="rain", bounces=range(len(HOSTILE)))
    path = tmp_path / f"prompts{suffix}"
    if suffix == ".csv":
        frame.to_csv(path, index=False)
    elif suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path)
    table = read_prompts(path)
    assert table["prompt_id"].to_pylist() == frame["prompt_id"].tolist()
    assert table["prompt"].to_pylist() == HOSTILE
    assert table["bounces"].to_pylist() == list(range(len(HOSTILE)))
    assert table["video_path"].null_count == table["audio_path"].null_count == len(HOSTILE)
    assert table.column_names[: len(PROMPTS.names)] == PROMPTS.names


def test_published_headers_are_taken_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "javisdit.csv"
    path.write_text(
        "path,id,audio_path,num_frames,text,audio_text\nclips/a.mp4,0017,clips/a.wav,81,a dog barks,barking\n"
    )
    (row,) = read_prompts(path).to_pylist()
    assert row == {
        "prompt_id": "0017",
        "prompt": "a dog barks",
        "audio_prompt": "barking",
        "video_path": "clips/a.mp4",
        "audio_path": "clips/a.wav",
        "num_frames": 81,
    }


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("p.csv", "prompt_id,text\na,x\na,y\n", ["p.csv", "'prompt_id'", "row 1", "'a'"]),
        ("p.csv", "prompt_id\na\n", ["p.csv", "'prompt'"]),
        ("p.csv", "prompt_id,prompt\n,x\n", ["p.csv", "'prompt_id'", "row 0", "empty"]),
        ("p.csv", "prompt_id,prompt\na,b,c\n", ["p.csv", "3"]),
        ("p.csv", "prompt_id,prompt\n", ["p.csv", "no prompts"]),
        (
            "p.jsonl",
            '{"prompt_id": "a", "prompt": "x"}\n{"prompt_id": "b"}\n',
            ["p.jsonl", "'prompt'", "row 1", "empty"],
        ),
        ("p.jsonl", '{"prompt_id": "a", "prompt": "x"}\nnot json\n', ["p.jsonl", "line 2"]),
        ("p.jsonl", '{"prompt_id": "a", "prompt": "x", "tags": ["y"]}\n', ["p.jsonl", "'tags'", "flat"]),
        (
            "p.jsonl",
            '{"prompt_id": "a", "prompt": "x"}\n{"prompt_id": "b", "prompt": "\\ud800"}\n',
            ["'prompt'", "row 1"],
        ),
        ("p.parquet", "no parquet", ["p.parquet", "cannot be read"]),
        ("p.xlsx", "", ["p.xlsx", ".jsonl"]),
    ],
)
def test_a_wrong_prompts_table_is_named_to_the_row(name: str, text: str, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        read_prompts(path)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    ("table", "schema", "words"),
    [
        (candidates(index=[0, None]), CANDIDATES, ["'index'", "row 1"]),
        (candidates(index=["0", "one"]), CANDIDATES, ["'index'", "row 1", "'one'"]),
        (candidates(fps=[16.0, float("inf")]), CANDIDATES, ["'fps'", "row 1", "inf"]),
        (candidates(candidate_id=["a/0", "a/0"]), CANDIDATES, ["'candidate_id'", "row 1", "row 0"]),
        (pa.table({"candidate_id": ["a/0"], "ib_av": [float("nan")]}), SCORES, ["'ib_av'", "row 0", "nan"]),
        (candidates().replace_schema_metadata({"avdpo.version": "99"}), CANDIDATES, ["version 99"]),
    ],
)
def test_validation_names_file_column_and_row(table: pa.Table, schema: pa.Schema, words: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        validate(table, schema, "some/table.parquet")
    assert all(word in str(caught.value) for word in ["some/table.parquet", *words]), caught.value


def test_written_tables_carry_their_version_and_open_in_pandas(tmp_path: Path) -> None:
    path = tmp_path / "candidates.parquet"
    write_table(candidates(seed=[2**62 + 1, None], colour=["red", "blue"]), CANDIDATES, path)
    metadata = pq.read_schema(path).metadata
    assert (metadata[b"avdpo.table"], metadata[b"avdpo.version"]) == (b"candidates", b"1")
    frame = pd.read_parquet(path)
    assert frame["colour"].tolist() == ["red", "blue"]
    assert frame["seed"].iloc[0] == 2**62 + 1  # not rounded to a float
    table = read_table(path, CANDIDATES, "x")
    assert table.column_names == [*CANDIDATES.names, "colour"]
    assert table["seed"].to_pylist() == [2**62 + 1, None]


def test_a_candidates_table_of_before_seconds_were_recorded_is_read_without_them(tmp_path: Path) -> None:
    path = tmp_path / "candidates.parquet"
    write_table(candidates(), CANDIDATES, path)
    pq.write_table(pq.read_table(path).drop_columns("generation_s"), path)
    table = read_table(path, CANDIDATES, "x")
    assert table.column_names == CANDIDATES.names
    assert table["generation_s"].null_count == len(table) == 2


def test_a_table_that_is_not_there_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"python -m pipeline\.sample"):
        read_table(tmp_path / "none.parquet", CANDIDATES, "python -m pipeline.sample")


def test_pairs_schema_has_every_metric_on_both_sides() -> None:
    names = pairs_schema(["ib_av"]).names
    assert {"chosen_ib_av", "rejected_ib_av", "chosen_audio_video_score", "margin_audio", "margin", "num_frames"} <= {
        *names
    }
