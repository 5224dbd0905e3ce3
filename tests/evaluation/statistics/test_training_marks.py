"""Metrics with which a compared model was trained are marked; others count as held out only if this is certain."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.lineage import LABELLED, UNKNOWN, UNTRAINED, Lineage, PreferenceTraining, RewardUse
from evaluation.compare.command import main
from evaluation.statistics.training_marks import TrainingMark, joined, mark


def ranked_by(name, *metrics):
    return Lineage((PreferenceTraining("rewards", (RewardUse(name, "1", metrics),)),))


DPO = ranked_by("imagebind", "ib_tv", "ib_av")


@pytest.mark.parametrize(
    ("metric", "reward", "expected"),
    [
        ("ib_av", "imagebind", TrainingMark("trained", ("dpo",))),
        ("ib_av", None, TrainingMark("trained", ("dpo",))),  # the name of the column decides
        ("ib_ta", "imagebind", TrainingMark("related", ("dpo",))),
        ("ib_av", "verifiable", TrainingMark("held_out")),  # another judge, whose column has the same name
        ("fad", None, TrainingMark("held_out")),
    ],
)
def test_marks_by_metric_and_reward(metric, reward, expected):
    assert mark(metric, reward, {"sft": UNTRAINED, "dpo": DPO}) == expected


def test_an_unknown_lineage_leaves_no_metric_held_out():
    assert mark("fad", None, {"old": UNKNOWN, "dpo": DPO}) == TrainingMark("unknown", ("old",))
    assert mark("ib_av", None, {"old": UNKNOWN, "dpo": DPO}) == TrainingMark("trained", ("dpo",))
    assert mark("ib_av", None, {"old": UNKNOWN.then(DPO)}).kind == "trained"


def test_people_are_no_metric_and_every_round_counts():
    assert mark("ib_av", "imagebind", {"human": LABELLED}).kind == "held_out"
    assert mark("ib_av", "imagebind", {"human": DPO.then(LABELLED)}) == TrainingMark("trained", ("human",))


def test_what_is_made_of_metrics_has_the_worst_of_their_marks():
    trained, related = TrainingMark("trained", ("b",)), TrainingMark("related", ("a",))
    assert joined([TrainingMark("held_out"), related, trained, TrainingMark("trained", ("c",))]) == TrainingMark(
        "trained", ("b", "c")
    )
    assert joined([]) == TrainingMark("held_out")


def with_lineage(folder, lineage, reward="imagebind"):
    """Return the table with lineage metadata, as pipeline.sample and pipeline.score write it."""
    path = folder / "candidates" / "candidates.parquet"
    table = pq.read_table(path)
    metadata = table.schema.metadata | {b"avdpo.lineage": json.dumps(lineage.to_dict()).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    path = folder / "scores" / "scores.parquet"
    table = pq.read_table(path)
    made_by = json.dumps({reward: {"version": "1", "weights": None, "path": None}})
    pq.write_table(table.replace_schema_metadata(table.schema.metadata | {b"avdpo.rewards": made_by.encode()}), path)
    return str(folder)


def test_command_marks_training_rewards_and_names_held_out_metrics(make_model, tmp_path, capsys):
    sft = with_lineage(make_model("sft"), UNTRAINED, "mine")
    dpo = with_lineage(make_model("dpo"), ranked_by("mine", "ib_tv", "audio_quality"), "mine")
    people = with_lineage(make_model("people"), LABELLED, "mine")
    assert main([sft, dpo, people, "--num_bootstrap", "200"]) == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert "* a training reward of dpo" in lines
    assert "~ another score of a training reward of dpo" in lines
    assert "held out, no compared model was trained on them: none of the metrics" in lines
    assert "sft: no preference training" in lines
    assert "dpo: preferences by mine 1 (ib_tv, audio_quality)" in lines
    assert "people: preferences by labels of people" in lines
    assert sum(line.startswith("ib_tv \u2191 *") for line in lines) == 2
    assert sum(line.startswith("ib_ta \u2191 ~") for line in lines) == 2
    assert sum(line.startswith("video \u2191 *") for line in lines) == 2

    other = with_lineage(make_model("other"), ranked_by("imagebind", "ib_tv"), "mine")
    assert main([sft, other, "--num_bootstrap", "200"]) == 0
    assert "trained on them: visual_quality, motion_quality" in capsys.readouterr().out
    rows = json.loads((tmp_path / "other" / "comparison" / "comparison.json").read_text())["comparisons"][0]["rows"]
    assert {row["training"] for row in rows} == {"held_out"}


def test_a_column_that_has_a_name_of_its_own_in_the_table_is_still_the_rewards(make_model, tmp_path):
    """An example is evaluation.run, whose table has the measurements of Bounce beside the learned rewards' columns."""
    metadata = {"reward": "verifiable", "column": "desync", "higher_is_better": "false"}
    lineages = {"sft": UNTRAINED, "dpo": ranked_by("verifiable", "desync")}
    for name, lineage in lineages.items():
        path = make_model(name) / "scores" / "scores.parquet"
        table = pq.read_table(path)
        field = pa.field("bounce_desync", pa.float64(), metadata=metadata)
        pq.write_table(table.append_column(field, table["desync"]), path)
        with_lineage(tmp_path / name, lineage)
    assert main([str(tmp_path / name) for name in lineages]) == 0
    [found] = json.loads((tmp_path / "dpo" / "comparison" / "comparison.json").read_text())["comparisons"]
    assert {row["name"]: row["training"] for row in found["rows"]}["bounce_desync"] == "trained"


def test_a_run_of_before_lineage_was_kept_says_so(make_model, capsys):
    assert main([str(make_model("old")), with_lineage(make_model("new"), UNTRAINED), "--num_bootstrap", "200"]) == 0
    printed = capsys.readouterr().out
    assert "old: lineage unknown" in printed
    assert "? perhaps a training reward of old" in printed
    assert "trained on them: none of the metrics" in printed
