"""By what a model's preferences were chosen: written, read, chained, and never guessed."""

from __future__ import annotations

import json

import pytest

from core.lineage import (
    LABELLED,
    UNKNOWN,
    UNTRAINED,
    Lineage,
    PreferenceTraining,
    RewardUse,
    parse_lineage,
    read_lineage,
    write_lineage,
)

RANKED = Lineage((PreferenceTraining("rewards", (RewardUse("imagebind", "2", ("ib_tv", "ib_av")),)),))


def test_a_folder_keeps_the_whole_history(tmp_path):
    lineage = UNTRAINED.then(RANKED).then(LABELLED)
    write_lineage(tmp_path, lineage)
    assert read_lineage(tmp_path) == lineage
    values = json.loads((tmp_path / "lineage.json").read_text())
    assert values["trainings"] == [
        {"source": "rewards", "rewards": [{"name": "imagebind", "version": "2", "metrics": ["ib_tv", "ib_av"]}]},
        {"source": "labels", "rewards": []},
    ]
    assert lineage.is_complete


def test_nothing_written_is_unknown_and_stays_so_after_further_training(tmp_path):
    assert read_lineage(tmp_path) == UNKNOWN != UNTRAINED
    after = UNKNOWN.then(RANKED)
    assert after.trainings == RANKED.trainings
    assert not after.is_complete
    assert not RANKED.then(UNKNOWN).is_complete


def test_the_same_lineage_is_not_written_again(tmp_path):
    write_lineage(tmp_path, RANKED)
    before = (tmp_path / "lineage.json").stat().st_mtime_ns
    write_lineage(tmp_path, RANKED)
    assert (tmp_path / "lineage.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no lineage that can be read"),
        ("[]", "no lineage that can be read"),
        ('{"version": 9, "is_complete": true, "trainings": []}', "version 9.*update it"),
        ('{"version": 1, "is_complete": true, "trainings": [{"source": "dice", "rewards": []}]}', "dice"),
        ('{"version": 1, "trainings": []}', "is_complete"),
    ],
)
def test_what_is_no_lineage_is_refused_by_its_place(text, message):
    with pytest.raises(ValueError, match=rf"some/place.*{message}"):
        parse_lineage(text, "some/place")
