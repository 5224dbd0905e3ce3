"""`python -m evaluation.audit` on run folders."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.schema import CANDIDATES, SCORES, table_from_rows, write_table
from evaluation.audit import reward_columns
from evaluation.audit.command import main
from pipeline.score.columns import ScoreColumns
from pipeline.score.settings import ChosenReward
from rewards import get_reward
from tests.evaluation.counters.sampled_runs import write_run

NUM_PROMPTS, SIZE = 30, 8


def write_scored(folder: Path, **columns) -> Path:
    """Write tables without clips: independent scores that give no warning, ground truth, and one failed candidate."""
    rng = np.random.default_rng(5)
    rows, scores = [], []
    for prompt in range(NUM_PROMPTS):
        for index in (-1, *range(SIZE + (prompt == 0))):
            name = f"p{prompt:02d}/{'gt' if index < 0 else index}"
            failed = (prompt, index) == (0, SIZE)
            row = {"candidate_id": name, "prompt_id": name[:3], "prompt": "a ball", "index": index}
            row |= {"is_ground_truth": index < 0, "error": "killed its worker" if failed else None}
            rows.append(row | {"video_path": None if failed else f"media/{name}.mp4"})
            values = dict(zip(("ib_tv", "ib_ta", "ib_av"), rng.normal(size=3).tolist(), strict=True))
            scores.append({"candidate_id": name} | values)
    frame = pd.DataFrame(scores).assign(**columns)
    write_table(table_from_rows(rows, CANDIDATES), CANDIDATES, folder / "candidates" / "candidates.parquet")
    write_table(pa.Table.from_pandas(frame, preserve_index=False), SCORES, folder / "scores" / "scores.parquet")
    return folder


def test_a_clean_run_prints_and_writes_the_audit(tmp_path, capsys):
    assert main([str(write_scored(tmp_path / "run")), "--num_bootstrap", "200"]) == 0
    printed = capsys.readouterr().out
    assert "240 candidates of 30 prompts, 8 each, and 30 ground-truth clips" in printed
    assert "no warnings" in printed
    assert "note: no counter-metrics, because the clips are not there" in printed
    assert "note: 1 candidates could not be sampled and are left out" in printed
    document = json.loads((tmp_path / "run" / "audit" / "audit.json").read_text())
    assert [one["name"] for one in document["rewards"]] == ["ib_tv", "ib_ta", "ib_av"]
    assert document["warnings"] == []
    with (tmp_path / "run" / "audit" / "audit.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows] == ["reward"] * 3 + ["rewards"] * 3
    [pair] = [row for row in rows if (row["name"], row["other"]) == ("ib_tv", "ib_av")]
    shown = next(line for line in printed.splitlines() if line.startswith("3 ib_av ") and "(" in line)
    assert f"{float(pair['pearson']):+.2f} ({float(pair['spearman']):+.2f})" in shown
    assert pair["num_samples"] == "240"


def test_strict_makes_a_warning_an_error(tmp_path, capsys):
    run = write_scored(tmp_path / "run", ib_av=0.0)
    argv = [str(run), "--num_bootstrap", "200"]
    assert main(argv) == 0
    assert "warning: ib_av: 100% of the prompts have no variance" in capsys.readouterr().out
    assert main([*argv, "--strict", "true"]) == 1
    assert main([*argv, "--strict", "true", "--columns", "ib_tv", "ib_ta"]) == 0


def test_rows_without_scores_have_failed(tmp_path):
    run = write_scored(tmp_path / "run")
    path = run / "scores" / "scores.parquet"
    pq.write_table(pq.read_table(path).slice(0, 200), path)
    assert main([str(run), "--num_bootstrap", "200"]) == 0
    [failed] = {round(one["failed"], 4) for one in json.loads((run / "audit" / "audit.json").read_text())["rewards"]}
    assert 0.1 < failed < 0.3


def test_rewards_are_correlated_with_what_the_clips_show(tmp_path, capsys):
    rng = np.random.default_rng(0)
    run = write_run(tmp_path / "run", num_prompts=4, per_prompt=4, scores={"ib_ta": rng.normal(size=16)})
    main([str(run), "--counters", "false"])
    assert not (run / "counter_metrics.parquet").exists()
    main([str(run)])
    counters = pd.read_parquet(run / "counter_metrics.parquet")
    scores = counters[["candidate_id"]].assign(ib_ta=counters["brightness"] + rng.normal(0, 0.1, 16))
    write_table(pa.Table.from_pandas(scores, preserve_index=False), SCORES, run / "scores" / "scores.parquet")
    capsys.readouterr()
    assert main([str(run)]) == 0
    printed = capsys.readouterr().out
    assert "warning: ib_ta pays for brighter pictures: r +1.00" in printed
    assert "note: 0 clips read, 16 known from counter_metrics.parquet" in printed


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "scores" / "scores.parquet").unlink(), r"scores\.parquet does not exist.*pipeline\.score"),
        (lambda run: (run / "candidates" / "candidates.parquet").write_bytes(b"no"), "not a readable Parquet file"),
    ],
)
def test_a_mistake_is_named_in_one_line(spoil, message, tmp_path, capsys):
    run = write_scored(tmp_path / "run")
    spoil(run)
    assert main([str(run)]) == 2
    error = capsys.readouterr().err
    assert re.search(f"^evaluation.audit: error: .*{message}", error)
    assert main([str(write_scored(tmp_path / "other")), "--columns", "loudness"]) == 2
    assert "no score of this name" in capsys.readouterr().err


def test_scores_say_what_their_reward_needs():
    chosen = ChosenReward("audiobox", get_reward("audiobox"), "1")
    schema = pa.schema([pa.field("candidate_id", pa.string()), *ScoreColumns(1, [chosen], []).fields()])
    columns = {column.name: column for column in reward_columns(schema)}
    assert columns["audio_quality"].needs == frozenset({"audio"})
    assert columns["audio_quality"].modality == "audio"
    own = pa.schema([pa.field("mine", pa.float64(), metadata={"higher_is_better": "true", "needs": "text video"})])
    [mine] = reward_columns(own)
    assert (mine.modality, mine.sees_prompt) == ("video", True)
    older = pa.schema([pa.field("mine", pa.float64(), metadata={"higher_is_better": "true", "reward": "absent"})])
    assert reward_columns(older)[0].sees_prompt is None
