"""Counter-metrics in `evaluation.compare`: shifts of clips on disk are shown, tested and named."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evaluation.compare.command import main
from media import read_wav, write_wav
from tests.evaluation.counters.sampled_runs import write_run

NUM_PROMPTS = 12
GAIN = 1.25


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return the folder of three models: a, the same samples again, and the same samples but louder."""
    folder = tmp_path_factory.mktemp("shifts")
    write_run(folder / "a", num_prompts=NUM_PROMPTS, per_prompt=2)
    for name in ("same", "loud"):
        shutil.copytree(folder / "a", folder / name)
    for wav in (folder / "loud").rglob("*.wav"):
        audio, rate = read_wav(wav)
        write_wav(wav, np.clip(audio * np.float32(GAIN), -0.98, 0.98), rate)
    return folder


def compared(runs, capsys, *arguments):
    """Return the printed text and the document of a comparison of all models."""
    folders = [str(runs / name) for name in ("a", "same", "loud")]
    assert main([*folders, "--num_bootstrap", "300", "--output", str(runs / "out"), *arguments]) == 0
    return capsys.readouterr().out, json.loads((runs / "out" / "comparison.json").read_text())


def test_what_moved_is_named_and_what_did_not_is_not(runs, capsys):
    printed, document = compared(runs, capsys)
    same, loud = (one["counters"] for one in document["comparisons"])
    assert {row["verdict"] for row in same["rows"]} == {""}
    assert same["warnings"] == []
    assert {row["name"] for row in loud["rows"] if row["verdict"]} == {"loudness"}
    [warning] = loud["warnings"]
    assert warning.startswith("loud: loudness +1.94 dB (+1.94 .. +1.94, ")
    assert warning.endswith("no reward asked for it")
    assert f"warning: {warning}" in printed
    assert "Counter-metrics of loud against a" in printed


def test_intervals_tests_and_correction_are_those_of_the_metrics(runs, capsys):
    _, document = compared(runs, capsys)
    rows = [row for one in document["comparisons"] for row in one["counters"]["rows"]]
    row = next(row for row in document["comparisons"][1]["counters"]["rows"] if row["name"] == "loudness")
    assert row["difference_low"] <= row["difference"] <= row["difference_high"]
    assert (row["num_samples"], row["num_prompts"]) == (2 * NUM_PROMPTS, NUM_PROMPTS)
    assert row["p_corrected"] == pytest.approx(row["p_value"] * len(rows))  # the smallest p-value of all tests
    assert "video_latent_norm" not in {one["name"] for one in rows}  # no latents were kept
    metric = document["comparisons"][1]["rows"][0]
    assert (metric["name"], metric["p_corrected"]) == ("visual_quality", 1.0)


def test_the_csv_has_a_row_per_counter_metric(runs, capsys):
    compared(runs, capsys)
    with (runs / "out" / "comparison.csv").open() as file:
        rows = {(row["candidate"], row["name"]): row for row in csv.DictReader(file)}
    row = rows["loud", "loudness"]
    assert (row["kind"], row["unit"], row["verdict"], row["win_rate"]) == ("counter", "dB", "shift", "")
    assert rows["loud", "visual_quality"]["unit"] == ""


def test_a_small_shift_is_shown_but_not_named(runs, capsys):
    printed, document = compared(runs, capsys, "--min_shift", "5")
    assert document["comparisons"][1]["counters"]["warnings"] == []
    assert "warning" not in printed
    line = next(line for line in printed.splitlines() if line.startswith("loudness") and line.endswith("shift"))
    assert "+1.9" in line


def test_counter_metrics_can_be_turned_off(runs, capsys):
    printed, document = compared(runs, capsys, "--counters", "false")
    assert "Counter-metrics" not in printed
    assert document["counter_notes"] == []
    assert all(one["counters"]["rows"] == [] for one in document["comparisons"])


def test_what_was_read_is_said(runs, capsys):
    compared(runs, capsys)
    printed, document = compared(runs, capsys)
    assert document["counter_notes"] == [
        f"{name}: 0 clips read, {2 * NUM_PROMPTS} known from counter_metrics.parquet" for name in ("a", "same", "loud")
    ]
    assert f"note: {document['counter_notes'][0]}" in printed


def test_models_without_media_are_compared_with_one_note(runs, tmp_path, capsys):
    for name in ("a", "loud"):
        shutil.copytree(runs / name, tmp_path / name, ignore=shutil.ignore_patterns("media", "*counter*"))
    assert main([str(tmp_path / "a"), str(tmp_path / "loud"), "--num_bootstrap", "200"]) == 0
    printed = capsys.readouterr().out
    assert "visual_quality" in printed
    assert printed.count("note:") == 1
    assert "note: no counter-metrics, because the clips of a, loud are not there" in printed


def test_scores_of_the_prompt_are_shown_and_only_their_fall_is_named(runs, tmp_path, capsys):
    for name, shift in (("a", 0.0), ("worse", -0.5), ("better", 0.5)):
        shutil.copytree(runs / "a", tmp_path / name)
        path = tmp_path / name / "scores" / "scores.parquet"
        frame = pd.read_parquet(path)
        frame.assign(ib_tv=frame.pop("visual_quality") + shift).to_parquet(path, index=False)
    folders = [str(tmp_path / name) for name in ("a", "worse", "better")]
    assert main([*folders, "--num_bootstrap", "200", "--output", str(tmp_path / "out")]) == 0
    worse, better = json.loads((tmp_path / "out" / "comparison.json").read_text())["comparisons"]
    assert [row["verdict"] for row in better["counters"]["rows"] if row["kind"] == "text"] == ["shift"]
    assert better["counters"]["warnings"] == []
    [warning] = worse["counters"]["warnings"]
    assert warning.startswith("worse: ib_tv -0.500 (")
    assert warning.endswith("the samples follow their prompts less")


def test_what_a_reward_measures_is_no_counter_metric(runs, tmp_path, capsys):
    for name in ("a", "loud"):
        shutil.copytree(runs / name, tmp_path / name)
        path = tmp_path / name / "scores" / "scores.parquet"
        table = pq.read_table(path)
        field = pa.field("loudness", pa.float64(), metadata={"higher_is_better": "true"})
        pq.write_table(table.append_column(field, pa.array(np.arange(len(table)) + float(name == "loud"))), path)
    assert main([str(tmp_path / "a"), str(tmp_path / "loud"), "--num_bootstrap", "200"]) == 0
    [one] = json.loads((tmp_path / "loud" / "comparison" / "comparison.json").read_text())["comparisons"]
    assert {row["name"]: row["verdict"] for row in one["rows"]}["loudness"] == "better"
    assert "loudness" not in {row["name"] for row in one["counters"]["rows"]}
    assert one["counters"]["warnings"] == []


def test_a_bad_share_is_refused(runs, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([str(runs / "a"), str(runs / "loud"), "--min_shift", "-1"])
    assert "min_shift is -1.0" in capsys.readouterr().err
