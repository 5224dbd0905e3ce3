from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evaluation import TableError, compare_models, read_pairs
from evaluation.compare.command import main
from rewards import METRIC_COLUMNS

ROOT = Path(__file__).parents[3]


def rows_of(baseline, candidate, **settings):
    rows = compare_models(read_pairs(baseline, candidate), **{"num_bootstrap": 2000, "seed": 0, **settings})
    return {row.name: row for row in rows}


def noisy_shift(value, column="visual_quality", seed=5, size=40):
    """Return scores of a candidate that differ from the baseline's by exactly `value` on average in one column."""
    scores = np.random.default_rng(0).normal(size=(size, len(METRIC_COLUMNS)))
    noise = np.random.default_rng(seed).normal(0.0, 0.3, size=size)
    # Centred, so that the mean is known; test_bootstrap.py measures the coverage for noisy means.
    scores[:, METRIC_COLUMNS.index(column)] += value + noise - noise.mean()
    return scores


def test_identical_models_differ_by_nothing(make_model):
    rows = rows_of(make_model("a"), make_model("b"))
    assert set(rows) == {*METRIC_COLUMNS, "video", "audio", "audio_video", "overall"}
    for row in rows.values():
        assert row.win_rate == 0.5
        assert row.difference == row.difference_low == row.difference_high == 0.0
        assert row.verdict == ""
        assert row.num_samples == row.num_prompts == 40


def test_a_known_shift_is_covered_by_the_interval(make_model):
    row = rows_of(make_model("a"), make_model("b", noisy_shift(0.5)))["visual_quality"]
    assert row.difference == pytest.approx(0.5)
    assert 0.35 < row.difference_low < 0.5 < row.difference_high < 0.65
    assert row.verdict == "better"
    assert row.candidate_mean - row.baseline_mean == pytest.approx(row.difference)
    assert row.win_rate > 0.85


def test_an_exact_shift_is_found_exactly(make_model):
    row = rows_of(make_model("a"), make_model("b", shift={"ib_tv": 0.25}))["ib_tv"]
    assert row.difference == pytest.approx(0.25)
    assert (row.win_rate, row.win_rate_low, row.win_rate_high) == (1.0, 1.0, 1.0)


def test_lower_desync_wins(make_model):
    rows = rows_of(make_model("a"), make_model("b", shift={"desync": -0.1}))
    assert rows["desync"].difference == pytest.approx(-0.1)
    assert rows["desync"].win_rate == 1.0
    assert rows["desync"].verdict == "better"
    assert rows["audio_video"].win_rate == 1.0
    assert rows["audio_video"].difference > 0
    assert rows["video"].difference == rows["audio"].difference == 0.0


def test_modality_scores_are_means_of_standardised_metrics(make_model):
    """Expected: standardise over both models' rows with the sample deviation, negate desync, average, subtract."""
    a, b = make_model("a"), make_model("b", noisy_shift(0.4, "desync"))
    left, right = (pd.read_parquet(path / "scores" / "scores.parquet") for path in (a, b))
    both = pd.concat([left, right])
    scored = [(frame - both[c].mean()) / both[c].std() for c in ("ib_av", "desync") for frame in (left[c], right[c])]
    expected = ((scored[1] - scored[0]) - (scored[3] - scored[2])).mean() / 2
    assert rows_of(a, b)["audio_video"].difference == pytest.approx(expected)


def test_ties_count_half(make_model):
    scores = np.zeros((4, len(METRIC_COLUMNS)))
    better = scores.copy()
    better[:, 0] = [1.0, -1.0, 0.0, 1.0]
    rows = rows_of(make_model("a", scores, num_prompts=4), make_model("b", better, num_prompts=4))
    assert rows["visual_quality"].win_rate == (1 + 0 + 0.5 + 1) / 4
    assert rows["audio_quality"].win_rate == 0.5  # a constant metric does not give 0/0
    assert rows["overall"].win_rate == (1 + 0 + 0.5 + 1) / 4


def test_row_order_does_not_matter(make_model):
    def shuffle(candidates, scores):
        return candidates.sample(frac=1, random_state=1), scores.sample(frac=1, random_state=2)

    baseline = make_model("a")
    plain = make_model("one/b", noisy_shift(0.2))
    assert rows_of(baseline, plain) == rows_of(baseline, make_model("two/b", noisy_shift(0.2), edit=shuffle))


def test_nothing_is_dropped_in_silence(make_model, tmp_path):
    def spoil(candidates, scores):
        candidates.loc[0, "error"] = "sampling blew up"
        scores.loc[1, "error"] = "cannot decode"
        scores = pd.concat([scores, scores.iloc[[2]]])
        scores = scores[scores["candidate_id"] != "p003/0"]
        candidates = candidates[candidates["candidate_id"] != "p004/0"]
        scores.loc[scores["candidate_id"] == "p005/0", "ib_av"] = np.inf
        scores.loc[scores["candidate_id"] == "p006/0", "ib_ta"] = np.nan
        return candidates, scores

    a, b = make_model("a"), make_model("b", edit=spoil)
    pd.DataFrame({"candidate_id": ["p004/0"], "error": ["killed its worker"]}).to_parquet(
        b / "candidates" / "failures.parquet"
    )
    pairs = read_pairs(a, b)
    assert {row.candidate_id: row.reason for row in pairs.left_out} == {
        "p000/0": "failed in sample: sampling blew up",
        "p001/0": "failed in score: cannot decode",
        "p002/0": "duplicate: 2 rows in the score table",
        "p003/0": "has no row in the score table",
        "p004/0": "failed in sample: killed its worker",
        "p005/0": "a score is infinite",
    }
    assert all(row.model == "b" for row in pairs.left_out)
    rows = {row.name: row for row in compare_models(pairs, num_bootstrap=500, seed=0)}
    assert pairs.num_pairs == rows["ib_av"].num_samples == 34
    assert rows["ib_ta"].num_samples == rows["audio"].num_samples == 33


def test_samples_of_only_one_model_are_named(make_model):
    pairs = read_pairs(make_model("a", num_prompts=5), make_model("b", num_prompts=7))
    assert [(row.candidate_id, row.model) for row in pairs.left_out] == [("p005/0", "a"), ("p006/0", "a")]
    assert pairs.num_pairs == 5


def test_ground_truth_is_set_aside_and_counted(make_model):
    def with_truth(candidates, scores):
        truth = candidates.iloc[[0]].assign(candidate_id="p000/gt", is_ground_truth=True, seed=None)
        return pd.concat([candidates, truth]), pd.concat([scores, scores.iloc[[0]].assign(candidate_id="p000/gt")])

    pairs = read_pairs(make_model("a", edit=with_truth), make_model("b"))
    assert (pairs.num_pairs, pairs.num_ground_truth, pairs.left_out) == (40, 1, ())


def test_seeds_that_differ_in_the_last_bit_are_an_error(make_model):
    """The seeds have 63 bits and would be equal in float64."""

    def other_seed(candidates, scores):
        candidates.loc[7, "seed"] += 1
        return candidates, scores

    with pytest.raises(ValueError, match=r"1 of 40 candidates have another seed .*p007/0.*same run seed"):
        read_pairs(make_model("a"), make_model("b", edit=other_seed))


def test_different_prompts_under_one_id_are_an_error(make_model):
    def other_prompt(candidates, scores):
        candidates.loc[3, "prompt"] = "another text"
        return candidates, scores

    with pytest.raises(
        TableError, match=r"another prompt .*p003/0: 'a ball, number p003' and 'another text'.*same prompts table"
    ):
        read_pairs(make_model("a"), make_model("b", edit=other_prompt))


def test_disjoint_ids_are_an_error(make_model):
    def rename(candidates, scores):
        return tuple(frame.assign(candidate_id="x" + frame["candidate_id"]) for frame in (candidates, scores))

    with pytest.raises(TableError, match=r"p000/0.*xp000/0.*nothing can be paired.*same prompts table"):
        read_pairs(make_model("a"), make_model("b", edit=rename))


def test_a_folder_without_scores_says_which_command_makes_them(make_model, tmp_path):
    (make_model("b") / "scores" / "scores.parquet").unlink()
    with pytest.raises(TableError, match=r"b has no scores/scores\.parquet.*pipeline\.score"):
        read_pairs(make_model("a"), tmp_path / "b")


def test_a_truncated_table_is_named(make_model, tmp_path):
    path = make_model("b") / "scores" / "scores.parquet"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(TableError, match=r"scores\.parquet is not a readable parquet file"):
        read_pairs(make_model("a"), tmp_path / "b")


def test_clips_of_other_lengths_are_pointed_out(make_model):
    def longer(candidates, scores):
        return candidates.assign(duration_s=4.0), scores

    pairs = read_pairs(make_model("a"), make_model("b", edit=longer))
    assert any("2.06 s to 4.00 s" in note and "desync" in note for note in pairs.notes)


def test_third_party_columns_are_compared_by_their_stated_direction(make_model):
    folders = [make_model("a"), make_model("b")]
    for offset, folder in enumerate(folders):
        path = folder / "scores" / "scores.parquet"
        table = pq.read_table(path)
        for name, metadata in (("flicker_hz", {"higher_is_better": "false"}), ("mystery", None)):
            column = pa.array(np.arange(len(table)) - float(offset))
            table = table.append_column(pa.field(name, pa.float64(), metadata=metadata), column)
        pq.write_table(table, path)
    pairs = read_pairs(*folders)
    rows = {row.name: row for row in compare_models(pairs, num_bootstrap=200, seed=0)}
    assert rows["flicker_hz"].win_rate == 1.0
    assert "mystery" not in rows
    assert any("'mystery'" in note for note in pairs.notes)


def test_command_prints_and_writes_the_tables(make_model, tmp_path, capsys):
    argv = [str(make_model("a")), str(make_model("b", noisy_shift(0.5)))]
    assert main([*argv, "--num_bootstrap", "500"]) == 0
    printed = capsys.readouterr().out
    folder = tmp_path / "b" / "comparison"
    document = json.loads((folder / "comparison.json").read_text())
    [comparison] = document["comparisons"]
    assert (document["baseline"], comparison["candidate"], comparison["num_pairs"]) == ("a", "b", 40)
    with (folder / "comparison.csv").open() as file:
        table = {row["name"]: row for row in csv.DictReader(file)}
    assert table["visual_quality"]["verdict"] == "better"
    assert float(table["overall"]["win_rate"]) == next(
        r["win_rate"] for r in comparison["rows"] if r["name"] == "overall"
    )
    assert json.loads((folder / "summary.json").read_text())["done"] == 40
    lines = [line for line in printed.splitlines() if line.startswith(tuple(METRIC_COLUMNS))]
    assert len(lines) == len(METRIC_COLUMNS)
    assert len({line.index("]") for line in lines}) == 1  # aligned
    assert "desync \u2193" in printed
    assert "visual_quality \u2191" in printed


def test_command_fails_when_samples_have_no_pair_unless_told(make_model, tmp_path, capsys):
    argv = [str(make_model("a")), str(make_model("b", num_prompts=38))]
    argv += ["--num_bootstrap", "200", "--output", str(tmp_path / "out")]
    assert main(argv) == 1
    assert "left out: 2 samples" in capsys.readouterr().out
    assert main([*argv, "--max_failures", "2"]) == 0


def test_dry_run_writes_nothing(make_model, tmp_path, capsys):
    argv = [str(make_model("a")), str(make_model("b")), "--dry_run", "true"]
    assert main(argv) == 0
    assert "40 pairs over 40 prompts" in capsys.readouterr().out
    assert not (tmp_path / "b" / "comparison").exists()


def test_command_starts_without_torch_and_names_a_mistake(make_model, tmp_path):
    code = "import sys, evaluation.compare; sys.exit(sum(m in sys.modules for m in ('torch', 'ray', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
    argv = [str(make_model("a")), str(tmp_path / "nothing")]
    command = [sys.executable, "-m", "evaluation.compare", *argv]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "has no candidates/candidates.parquet" in result.stderr
    assert "Traceback" not in result.stderr
