"""`python -m pipeline.inspect` describes every kind of table."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from pipeline.inspect.columns import BARS, column_facts, histogram
from pipeline.inspect.command import main
from tests.pipeline.rank.ranked_run import run

__all__ = ["run"]


def shown(capsys: pytest.CaptureFixture[str], *argv: object) -> dict[str, str]:
    """Return the lines that the command prints, by their first word."""
    assert main([str(arg) for arg in argv]) == 0
    lines = capsys.readouterr().out.splitlines()
    return {line.split()[0]: " ".join(line.split()[1:]) for line in reversed(lines) if line.strip()}


def test_columns_metadata_and_rows_of_a_parquet_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pa.table(
        {
            "candidate_id": ["p/0", "p/1", "p/2", "p/3"],
            "ib_av": [0.0, None, 1.0, 0.5],
            "seed": pa.array([2**62 + 1, 2**62 + 2, None, None], pa.int64()),
            "is_ground_truth": [True, False, False, False],
            "fps": [16.0] * 4,
            "error": pa.nulls(4, pa.string()),
        }
    ).replace_schema_metadata(
        {
            "avdpo.protocol": "correct",
            "avdpo.rewards": '{"imagebind": {"version": "3", "weights": "abc", "path": null}}',
        }
    )
    pq.write_table(table, tmp_path / "scores.parquet")
    told = shown(capsys, tmp_path / "scores.parquet", "--rows", 2, "--bins", 4)
    assert told[f"{tmp_path}/scores.parquet:"].startswith("4 rows, 6 columns")
    assert told["protocol:"] == "correct"
    assert told["rewards:"] == "imagebind (version 3, weights abc)"
    assert told["error"] == "string 100.0%"
    assert told["ib_av"] == "double 25.0% 0 |\u2588 \u2588\u2588| 1 mean 0.5, std 0.4082"
    assert told["seed"].startswith(f"int64 50.0% {2**62 + 1} |")
    assert told["is_ground_truth"] == "bool - true 25.0%"
    assert told["fps"] == "double - all 16"
    assert told["candidate_id"] == "string - 4 distinct, such as 'p/0'"
    main([str(tmp_path / "scores.parquet"), "--rows", "2"])
    assert f"seed             {2**62 + 2}" in capsys.readouterr().out


def test_run_folder_shows_its_tables_in_order(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run), "--rows", "0"]) == 0
    text = capsys.readouterr().out
    places = [text.index(f"{run}/{name}") for name in ("candidates/candidates", "scores/scores", "pairs:")]
    assert places == sorted(places)
    assert "strategy: modality_micro" in text
    assert "settings: model weights 0123456789ab, seed 7, num_candidates 3" in text
    assert "margin_audio_video" in text


def test_training_data_is_summarised_by_lengths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {"prompt_id": ["p", "q"], "text_embeds": [[0.5] * 20, [0.5] * 24], "video_latents": [[1.0] * 8] * 2}
    Dataset.from_dict(rows).save_to_disk(str(tmp_path / "training"))
    told = shown(capsys, tmp_path / "training", "--rows", 0)
    assert told["text_embeds"] == "list<double> - length 20 to 24"
    assert told["video_latents"] == "list<double> - length 8"
    assert main([str(tmp_path / "training")]) == 0
    assert "[0.5, 0.5, 0.5, 0.5, 0.5, 0.5] ... (20 in all)" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_prompts_in_every_file_format(suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = pd.DataFrame({"id": ["0017", "0018"], "text": ["a\nball", "b"], "difficulty": [1, 4]})
    path = tmp_path / f"prompts.{suffix}"
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_json(path, orient="records", lines=True)
    told = shown(capsys, path)
    assert told["id"] == "string - 2 distinct, such as '0017'"
    assert told["text"] == "string - 2 distinct, such as 'a ball'"
    assert told["difficulty"].startswith("int64 - 1 |")


def test_odd_columns() -> None:
    def values(column: pa.Array) -> str:
        return column_facts(pa.chunked_array([column])).values

    assert values(pa.array([], pa.float64())) == ""
    assert values(pa.array([float("nan"), float("inf")])) == "2 not finite"
    assert values(pa.array([1.0, float("nan"), 3.0])).endswith("mean 2, std 1  1 not finite")
    assert values(pa.array([None, None], pa.int64())) == ""
    assert values(pa.array([b"x"])) == "(type not summarised)"


def test_histogram_shows_shape_and_never_hides_a_value() -> None:
    values = np.concatenate([np.zeros(100_000), [10.0]])
    assert histogram(values, 10) == BARS[-1] + " " * 8 + BARS[1]
    assert histogram(np.arange(8.0), 4) == BARS[-1] * 4


def test_a_million_rows_take_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    columns = {"candidate_id": pa.array(np.arange(10**6)).cast(pa.string())}
    columns |= {f"metric_{k}": pa.array(rng.normal(size=10**6)) for k in range(3)}
    pq.write_table(pa.table(columns), tmp_path / "scores.parquet")
    started = time.perf_counter()
    told = shown(capsys, tmp_path / "scores.parquet")
    assert time.perf_counter() - started < 20  # 1 s on an idle machine
    assert told["candidate_id"].startswith("string - 1,000,000 distinct")


@pytest.mark.parametrize(
    ("name", "words"),
    [("missing.parquet", "does not exist"), ("empty", "holds no tables"), ("torn.parquet", "not a readable Parquet")],
)
def test_unreadable_tables_are_named(name: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 torn")
    assert main([str(tmp_path / name)]) == 2
    assert words in (told := capsys.readouterr().err)
    assert name in told
