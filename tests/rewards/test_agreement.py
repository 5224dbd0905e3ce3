"""Agreement of scores with labels: figures that can be told by hand, and the command on tables as they come."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau

from rewards import HIGHER_IS_BETTER, METRIC_COLUMNS, MODALITY_METRICS
from rewards.agreement import agreement, main


def write_table(path: Path, scores: dict[str, dict[str, float]]) -> Path:
    frame = pd.DataFrame.from_dict(scores, orient="index").rename_axis("candidate_id").reset_index()
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(path, index=False)
    return path


def write_labels(path: Path, header: str, *rows: str) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def only(report, score: str, respect: str = "overall"):
    (row,) = [row for row in report.rows if (row.respect, row.score) == (respect, score)]
    return row


@pytest.fixture
def scores(tmp_path):
    values = {"p/0": 3.0, "p/1": 2.0, "q/0": 1.0, "q/1": 5.0, "r/0": 4.0, "r/1": 4.0}
    table = {key: {"ib_av": value, "desync": value} for key, value in values.items()}
    return write_table(tmp_path / "scores.parquet", table)


def test_chosen_and_rejected_counted_by_hand(scores, tmp_path):
    labels = write_labels(
        tmp_path / "l.csv", "chosen_id,rejected_id", "p/0,p/1", "q/0,q/1", "r/0,r/1"
    )  # right, wrong, equal
    row = only(agreement(scores, labels), "ib_av")
    assert (row.num_pairs, row.num_label_ties, row.num_score_ties) == (3, 0, 1)
    assert row.accuracy == pytest.approx(0.5)
    assert row.tau == pytest.approx(0.0)
    assert 0 < row.low < row.accuracy < row.high < 1


def test_a_metric_that_is_better_when_low_is_turned_round(scores, tmp_path):
    labels = write_labels(tmp_path / "l.csv", "chosen_id,rejected_id", "p/0,p/1", "q/1,q/0")
    report = agreement(scores, labels)
    assert only(report, "ib_av").accuracy == 1.0
    assert only(report, "ib_av").tau == 1.0
    assert only(report, "desync").accuracy == 0.0
    assert only(report, "desync").tau == -1.0


def test_label_ties_are_counted_and_left_out_of_the_accuracy(scores, tmp_path):
    labels = write_labels(
        tmp_path / "l.csv", "pair_id,a,b,winner", "1,p/0,p/1,a", "2,q/0,q/1,B", "3,r/0,r/1, tie", "4,q/0,q/1,tie"
    )
    row = only(agreement(scores, labels), "ib_av")
    assert (row.num_pairs, row.num_label_ties, row.num_score_ties) == (4, 2, 0)
    assert row.accuracy == 1.0
    assert row.tau == pytest.approx(2 / np.sqrt(3 * 2))  # tau-b: 3 pairs without equal scores, 2 without equal labels


def test_each_modality_of_the_labels_has_its_own_figures(scores, tmp_path):
    labels = write_labels(
        tmp_path / "l.csv", "a,b,modality,winner", "p/0,p/1,audio,a", "p/0,p/1,video,b", "q/0,q/1,video,a"
    )
    report = agreement(scores, labels)
    assert only(report, "ib_av", "audio").accuracy == 1.0
    assert only(report, "ib_av", "video").accuracy == 0.0
    assert only(report, "ib_av", "video").num_pairs == 2
    assert {row.respect for row in report.rows} == {"audio", "video"}


def random_table(path: Path, num_prompts: int, seed: int, like: pd.DataFrame | None = None) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    keys = [f"prompt {number}/{index}" for number in range(num_prompts) for index in range(3)]
    values = rng.standard_normal((len(keys), len(METRIC_COLUMNS)))
    if like is not None:
        values = 0.5 * values + like[list(METRIC_COLUMNS)].to_numpy()
    frame = pd.DataFrame(values, columns=list(METRIC_COLUMNS))
    frame.insert(0, "candidate_id", keys)
    frame.to_parquet(path)
    return frame


def test_another_scores_table_as_labels_pairs_candidates_of_a_prompt(tmp_path):
    truth = random_table(tmp_path / "truth.parquet", 40, 0)
    ours = random_table(tmp_path / "ours.parquet", 40, 1, like=truth)
    shuffled = ours.sample(frac=1, random_state=0)
    shuffled.to_parquet(tmp_path / "ours.parquet")  # joined by key, not by position
    report = agreement(tmp_path / "ours.parquet", tmp_path / "truth.parquet")
    row = only(report, "ib_tv", "ib_tv")
    assert row.num_pairs == 40 * 3
    right = 0
    for _, group in ours.assign(truth=truth["ib_tv"], prompt=ours["candidate_id"].str[:-2]).groupby("prompt"):
        for i, j in ((0, 1), (0, 2), (1, 2)):
            right += (group["ib_tv"].iloc[i] > group["ib_tv"].iloc[j]) == (
                group["truth"].iloc[i] > group["truth"].iloc[j]
            )
    assert row.accuracy == pytest.approx(right / 120)
    assert row.tau == pytest.approx(2 * right / 120 - 1)  # without ties
    for name in (*MODALITY_METRICS, "overall"):
        assert only(report, name, name).accuracy > 0.7
    assert {row.score for row in report.rows} == {*METRIC_COLUMNS, *MODALITY_METRICS, "overall"}


def test_modality_scores_are_those_that_ranking_makes(tmp_path):
    """One metric far larger than the others must not outweigh them."""
    frame = random_table(tmp_path / "s.parquet", 30, 2)
    frame["visual_quality"] *= 1000
    frame.to_parquet(tmp_path / "s.parquet")
    metrics = list(MODALITY_METRICS["audio_video"])
    z = (frame[metrics] - frame[metrics].mean()) / frame[metrics].std(ddof=1)
    expected = (z * [1 if HIGHER_IS_BETTER[name] else -1 for name in metrics]).mean(axis=1)
    rows = [f"{a},{b}" for a, b in zip(frame["candidate_id"][::3], frame["candidate_id"][1::3], strict=True)]
    labels = write_labels(tmp_path / "l.csv", "chosen_id,rejected_id", *rows)
    row = only(agreement(tmp_path / "s.parquet", labels), "audio_video")
    assert row.accuracy == pytest.approx(np.mean(expected[::3].to_numpy() > expected[1::3].to_numpy()))


def test_tau_of_one_prompt_is_the_ordinary_one(tmp_path):
    rng = np.random.default_rng(3)
    first, second = rng.integers(0, 6, 12).astype(float), rng.integers(0, 6, 12).astype(float)  # with ties
    for name, values in (("a", first), ("b", second)):
        write_table(
            tmp_path / f"{name}.parquet", {f"p/{index}": {"ib_av": value} for index, value in enumerate(values)}
        )
    row = only(agreement(tmp_path / "a.parquet", tmp_path / "b.parquet"), "ib_av", "ib_av")
    assert row.tau == pytest.approx(kendalltau(first, second, variant="b").statistic)


def test_a_missing_score_leaves_out_its_pairs_alone(scores, tmp_path):
    frame = pd.read_parquet(scores)
    frame.loc[frame["candidate_id"] == "p/0", "ib_av"] = np.nan
    frame.to_parquet(scores)
    labels = write_labels(tmp_path / "l.csv", "chosen_id,rejected_id", "p/0,p/1", "q/1,q/0")
    report = agreement(scores, labels)
    assert only(report, "ib_av").num_pairs == 1
    assert only(report, "desync").num_pairs == 2


def test_pairs_that_share_a_prompt_widen_the_interval(tmp_path):
    """100 prompts with 10 pairs that say the same are worth 100 pairs, not 1000."""
    rng = np.random.default_rng(4)
    good = rng.random(100) < 0.7
    alone, repeated = [], []
    table = {}
    for number, right in enumerate(good):
        table |= {f"p{number}/0": {"ib_av": float(right)}, f"p{number}/1": {"ib_av": float(not right)}}
        alone.append(f"p{number}/0,p{number}/1")
        repeated += [alone[-1]] * 10
    write_table(tmp_path / "s.csv", table)
    rows = [
        only(agreement(tmp_path / "s.csv", write_labels(tmp_path / "l.csv", "chosen_id,rejected_id", *pairs)), "ib_av")
        for pairs in (alone, repeated)
    ]
    assert rows[0].accuracy == pytest.approx(rows[1].accuracy)
    assert rows[1].high - rows[1].low == pytest.approx(rows[0].high - rows[0].low, rel=0.02)
    expected = 2 * 1.96 * np.sqrt(good.mean() * (1 - good.mean()) / 100)
    assert rows[0].high - rows[0].low == pytest.approx(expected, rel=0.1)


def test_agreement_in_all_pairs_is_not_certainty(scores, tmp_path):
    labels = write_labels(tmp_path / "l.csv", "chosen_id,rejected_id", "p/0,p/1", "q/1,q/0")
    row = only(agreement(scores, labels), "ib_av")
    assert row.high == 1.0
    assert row.low == pytest.approx(2 / (2 + 1.96**2), abs=1e-3)  # Wilson's bound for 2 of 2


def test_the_command_prints_warns_and_writes(scores, tmp_path, capsys):
    labels = write_labels(tmp_path / "people.csv", "chosen_id,rejected_id", "p/0,p/1", "q/1,q/0", "gone/0,gone/1")
    for kind in ("json", "csv"):
        flags = ["--scores", str(scores), "--labels", str(labels), "--output", str(tmp_path / f"out.{kind}")]
        assert main(flags) == 0
    out = capsys.readouterr().out
    assert "note: people.csv: 2 of 6 candidates have no scores and are left out ('gone/0', 'gone/1')" in out
    assert "no video score: the table has no visual_quality" in out
    line = next(line for line in out.splitlines() if line.startswith("overall  ib_av"))
    assert line.split()[2:5] == ["2", "100.0", "%"]
    document = json.loads((tmp_path / "out.json").read_text())
    table = pd.read_csv(tmp_path / "out.csv")
    assert [row["score"] for row in document["rows"]] == table["score"].tolist()
    assert len(document["notes"]) == 3


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["chosen_id,rejected_id", "x/0,x/1"], ["None of the 2 candidates", "'p/0'", "'x/0'"]),
        (["a,b,winner", "p/0,p/1,left"], ["column 'winner', row 0", "'left'", "a, b, tie"]),
        (["a,b,winner,modality", "p/0,p/1,a,smell"], ["column 'modality', row 0", "'smell'", "audio_video, overall"]),
        (["id,label", "1,2"], ["id, label", "no labels", "chosen_id and rejected_id"]),
        (["chosen_id,rejected_id"], ["no rows"]),
        (["candidate_id,shade", "p/0,1"], ["holds no scores", "visual_quality"]),
        (["candidate_id,ib_tv", "p/0,1"], ["no column in common"]),
    ],
)
def test_labels_that_cannot_be_used_are_explained(scores, tmp_path, capsys, lines, words):
    labels = write_labels(tmp_path / "l.csv", *lines)
    assert main(["--scores", str(scores), "--labels", str(labels)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    for word in words:
        assert word in error


def test_labels_without_an_id_or_of_a_clip_with_itself_are_named(scores, tmp_path):
    for row, words in ((",p/0", r"column 'chosen_id', row 1.*empty"), ("p/0,p/0", r"row 1: 'p/0' is compared with")):
        labels = write_labels(tmp_path / "l.csv", "chosen_id,rejected_id", "p/0,p/1", row)
        with pytest.raises(ValueError, match=words):
            agreement(scores, labels)


@pytest.mark.parametrize("cell", ["good", "inf"])
def test_a_score_that_is_no_finite_number_is_named(tmp_path, cell):
    table = tmp_path / "s.csv"
    table.write_text(f"candidate_id,ib_av\np/0,1.5\np/1,{cell}\n")
    labels = write_labels(tmp_path / "l.csv", "chosen_id,rejected_id", "p/0,p/1")
    with pytest.raises(ValueError, match=rf"s.csv, column 'ib_av', row 1: .*{cell}.* no finite number"):
        agreement(table, labels)


def test_columns_of_unknown_direction_are_left_out_with_a_note(tmp_path):
    table = write_table(tmp_path / "s.csv", {"p/0": {"ib_av": 1.0, "mine": 2.5}, "p/1": {"ib_av": 2.0, "mine": 1.5}})
    report = agreement(table, write_labels(tmp_path / "l.csv", "chosen_id,rejected_id", "p/1,p/0"))
    assert {row.score for row in report.rows} == {"ib_av"}
    assert any(note.startswith("s.csv: mine left out") for note in report.notes)


def test_candidates_of_unknown_prompts_are_not_paired(tmp_path):
    """Paths share a folder, which is no prompt; a column prompt_id tells it."""
    path = write_table(tmp_path / "s.csv", {f"clips/{name}.mp4": {"ib_av": float(len(name))} for name in ("a", "bb")})
    with pytest.raises(ValueError, match=r"prompt of candidate 'clips/a.mp4' is not known.*prompt_id"):
        agreement(path, path)
    pd.read_csv(path).assign(prompt_id="0").to_csv(path, index=False)
    assert only(agreement(path, path), "ib_av", "ib_av").num_pairs == 1
