"""Comparison of several candidates in one call, and of folders written by `evaluation.run`."""

from __future__ import annotations

import csv
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.lineage import LABELLED
from evaluation import TableError, compare_models, read_pairs
from evaluation.compare.command import main
from evaluation.compare.tables import model_names
from rewards import METRIC_COLUMNS


def noise(value, seed, column="visual_quality", size=40):
    scores = np.random.default_rng(0).normal(size=(size, len(METRIC_COLUMNS)))
    added = np.random.default_rng(seed).normal(0.0, 0.3, size=size)
    scores[:, METRIC_COLUMNS.index(column)] += value + added - added.mean()
    return scores


def samples(folder, scores, *, seeds=None, lineage=None, edit=lambda frame: frame):
    """Write a samples.parquet with two metrics, like that of evaluation.run."""
    folder.mkdir()
    number = len(scores)
    frame = pd.DataFrame(
        {
            "candidate_id": [f"p{row:02d}/0" for row in range(number)],
            "prompt_id": [f"p{row:02d}" for row in range(number)],
            "prompt": [f"text {row}" for row in range(number)],
            "seed": pd.array([None] * number if seeds is None else seeds, "Int64"),
            "duration_s": 2.0,
            "generation_s": 0.5,
            "clip_score": scores,
            "jitter": -np.asarray(scores),
        }
    )
    table = pa.Table.from_pandas(edit(frame), preserve_index=False)
    fields = [
        field.with_metadata({"higher_is_better": {"clip_score": "true", "jitter": "false"}[field.name]})
        if field.name in ("clip_score", "jitter")
        else field
        for field in table.schema
    ]
    metadata = {} if lineage is None else {"avdpo.lineage": json.dumps(lineage.to_dict())}
    pq.write_table(table.cast(pa.schema(fields, metadata=metadata)), folder / "samples.parquet")
    return folder


def test_every_candidate_has_a_table_and_all_share_one_correction(make_model, tmp_path, capsys):
    folders = [make_model("a"), make_model("b", noise(0.12, 5)), make_model("c", noise(0.4, 6))]
    assert main([*map(str, folders), "--num_bootstrap", "200", "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "b against a: 40 pairs over 40 prompts" in printed
    assert "c against a: 40 pairs over 40 prompts" in printed
    document = json.loads((tmp_path / "out" / "comparison.json").read_text())
    rows = {(one["candidate"], row["name"]): row for one in document["comparisons"] for row in one["rows"]}
    strong, weak = rows["c", "visual_quality"], rows["b", "visual_quality"]
    assert strong["p_corrected"] == pytest.approx(24 * strong["p_value"])  # the smallest p-value of 2 x 12 metrics
    assert strong["verdict"] == "better"
    assert 0.001 < weak["p_value"] < 0.05 < weak["p_corrected"]
    assert weak["difference_low"] > 0  # in a comparison alone, the verdict would be "better"
    assert weak["verdict"] == ""
    with (tmp_path / "out" / "comparison.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["candidate"] for row in table] == ["b"] * 16 + ["c"] * 16

    alone = {row.name: row for row in compare_models(read_pairs(*folders[:2]), num_bootstrap=200, seed=0)}
    assert alone["visual_quality"].p_value == weak["p_value"]
    assert alone["visual_quality"].p_corrected == pytest.approx(12 * weak["p_value"])


def test_wins_ties_and_losses_are_counted_by_direction(tmp_path):
    a = samples(tmp_path / "a", [0.0, 0.0, 0.0, 0.0])
    b = samples(tmp_path / "b", [1.0, -1.0, 0.0, 2.0])
    rows = {row.name: row for row in compare_models(read_pairs(a, b), num_bootstrap=200, seed=0)}
    for name in ("clip_score", "jitter"):
        assert (rows[name].wins, rows[name].ties, rows[name].losses) == (2, 1, 1)
    assert set(rows) == {"clip_score", "jitter"}  # no modality has a metric, and durations are no metric


def test_samples_of_evaluation_run_without_seeds_are_paired_by_prompt(tmp_path):
    a = samples(tmp_path / "a", np.zeros(6))
    b = samples(tmp_path / "b", np.ones(6), seeds=range(6), lineage=LABELLED)
    pairs = read_pairs(a, b)
    assert pairs.num_pairs == 6
    assert any("paired only by their prompts" in note for note in pairs.notes)
    assert pairs.lineages["b"] == LABELLED
    assert not pairs.lineages["a"].is_complete
    other = samples(tmp_path / "c", np.ones(6), edit=lambda frame: frame.assign(prompt="another text"))
    with pytest.raises(TableError, match="another prompt"):
        read_pairs(a, other)


def test_samples_with_other_seeds_are_refused(tmp_path):
    a = samples(tmp_path / "a", np.zeros(3), seeds=[2**62, 2**62 + 1, 5])
    b = samples(tmp_path / "b", np.zeros(3), seeds=[2**62, 2**62 + 2, 5])
    with pytest.raises(TableError, match="1 of 3 candidates have another seed"):
        read_pairs(a, b)


def test_bad_samples_are_named(tmp_path):
    def spoil(frame):
        frame.loc[1, "clip_score"] = np.inf
        return pd.concat([frame, frame.iloc[[0]]])

    b = samples(tmp_path / "b", np.ones(6), edit=spoil)
    pd.DataFrame({"candidate_id": ["p09/0"], "error": ["no such file"]}).to_parquet(b / "failures.parquet")
    pairs = read_pairs(samples(tmp_path / "a", np.zeros(6)), b)
    assert {row.candidate_id: row.reason for row in pairs.left_out} == {
        "p00/0": "duplicate: 2 rows in the evaluation table",
        "p01/0": "a score is infinite",
        "p09/0": "failed in evaluation: no such file",
    }
    assert pairs.num_pairs == 4


def test_scores_of_other_rewards_under_one_name_are_not_compared(make_model):
    folders = [make_model("a"), make_model("b")]
    for folder, reward in zip(folders, ("verifiable", "videoalign"), strict=True):
        path = folder / "scores" / "scores.parquet"
        table = pq.read_table(path)
        place = table.column_names.index("visual_quality")
        field = table.schema.field(place).with_metadata({"reward": reward})
        pq.write_table(table.set_column(place, field, table["visual_quality"]), path)
    pairs = read_pairs(*folders)
    assert "visual_quality" not in pairs.baseline
    assert "motion_quality" in pairs.baseline
    assert any("visual_quality, by verifiable" in note and "by videoalign" in note for note in pairs.notes)


def test_models_are_named_by_what_tells_their_folders_apart(tmp_path):
    assert model_names([tmp_path / "sft", tmp_path / "dpo"]) == ["sft", "dpo"]
    rounds = [tmp_path / "initial" / "evaluation", tmp_path / "round-1" / "evaluation"]
    assert model_names(rounds) == ["initial/evaluation", "round-1/evaluation"]
    with pytest.raises(TableError, match="given twice"):
        model_names([tmp_path / "sft", tmp_path / "." / "sft"])


def test_one_folder_is_too_few(make_model, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([str(make_model("a"))])
    assert "nothing to compare it with" in capsys.readouterr().err
