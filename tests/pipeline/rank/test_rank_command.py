"""`python -m pipeline.rank` on tables that give no pair at all."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pyarrow as pa

from core.schema import CANDIDATES, SCORES, table_from_rows, write_table
from pipeline.rank.command import main
from rewards import METRIC_COLUMNS


def write_tables(folder: Path) -> None:
    """Two prompts of two candidates each; nothing could be scored."""
    names = [f"p{prompt}/{index}" for prompt in range(2) for index in range(2)]
    rows = [
        {
            "candidate_id": name,
            "prompt_id": name[:2],
            "prompt": "a ball",
            "index": int(name[-1]),
            "is_ground_truth": False,
            "seed": 1,
            "video_path": f"media/{name}.mp4",
            "num_frames": 33,
            "height": 64,
            "width": 64,
            "fps": 16.0,
            "sample_rate": 16000,
            "duration_s": 33 / 16,
        }
        for name in names
    ]
    write_table(table_from_rows(rows, CANDIDATES), CANDIDATES, folder / "candidates" / "candidates.parquet")
    scores = pa.table({"candidate_id": names} | {column: pa.nulls(4, pa.float64()) for column in METRIC_COLUMNS})
    write_table(scores, SCORES, folder / "scores" / "scores.parquet")


def test_no_pair_is_a_result_with_its_reasons_and_an_empty_dataset(tmp_path, capsys):
    write_tables(tmp_path)
    assert main(["--output_dir", str(tmp_path)]) == 0
    assert "0 pairs from 2 prompts (0%); 2 x fewer than two candidates" in capsys.readouterr().out
    frame = datasets.load_from_disk(str(tmp_path / "pairs")).to_pandas()
    assert len(frame) == 0
    assert {"prompt_id", "chosen_video_path", "rejected_desync", "margin"} <= set(frame.columns)
    assert json.loads((tmp_path / "pairs" / "ranking.json").read_text())["num_pairs"] == 0


def test_ctrl_c_ends_with_status_130_and_no_traceback(tmp_path: Path, monkeypatch, capsys) -> None:
    write_tables(tmp_path)

    def interrupted(*inputs: object, **settings: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.rank.command.rank_pairs", interrupted)
    assert main(["--output_dir", str(tmp_path)]) == 130
    assert "the same command continues" in capsys.readouterr().err
    monkeypatch.undo()
    assert main(["--output_dir", str(tmp_path)]) == 0
