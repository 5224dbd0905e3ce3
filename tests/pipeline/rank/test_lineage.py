"""Lineage of pairs: the rewards and metrics that chose them, read from the scores table."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from core.lineage import RewardUse
from pipeline.rank.lineage import ranking_lineage
from pipeline.rank.pairing import RANKED_METRICS
from rewards.metrics import MODALITY_METRICS

BOTH = {"videoalign": {"version": "2", "weights": "ab"}, "imagebind": {"version": "3", "weights": "cd"}}


def schema(rewards, of=lambda metric: None, extra=()):
    """Schema of a scores table whose columns name the reward in `of`."""
    fields = [
        pa.field(name, pa.float64(), metadata={"reward": of(name)} if of(name) else None)
        for name in (*RANKED_METRICS, *extra)
    ]
    return pa.schema(fields, metadata={"avdpo.rewards": json.dumps(rewards)})


def uses(*arguments):
    [training] = ranking_lineage(*arguments).trainings
    assert training.source == "rewards"
    return training.rewards


def test_metrics_are_listed_under_the_reward_that_made_them():
    found = uses(
        schema(BOTH, lambda metric: "imagebind" if metric.startswith("ib_") else "videoalign"), "modality_micro"
    )
    assert {use.name: use.version for use in found} == {"videoalign": "2", "imagebind": "3"}
    assert next(use.metrics for use in found if use.name == "imagebind") == ("ib_tv", "ib_ta", "ib_av")


def test_older_tables_have_a_lineage_if_one_reward_made_all_metrics():
    assert uses(schema({"verifiable": {"version": "1"}}), "agnostic") == (RewardUse("verifiable", "1", RANKED_METRICS),)
    assert uses(schema(BOTH), "agnostic") == (RewardUse(None, None, RANKED_METRICS),)
    assert uses(pa.schema([pa.field("ib_av", pa.float64())]), "agnostic") == (RewardUse(None, None, ("ib_av",)),)


def test_inconsistent_pairs_do_not_depend_on_audio_video_metrics():
    [use] = uses(schema({"verifiable": {"version": "1"}}), "inconsistent")
    assert use.metrics == (*MODALITY_METRICS["video"], *MODALITY_METRICS["audio"])


@pytest.mark.parametrize(
    ("gate", "more"),
    [
        ("loudness >= 1", ("loudness",)),
        ("audio_video_score >= 0", MODALITY_METRICS["audio_video"]),
        ("num_frames >= 5", ()),  # no score
    ],
)
def test_gates_decide_too(gate, more):
    [use] = uses(schema({"mine": {"version": "1"}}, extra=["loudness"]), "inconsistent", [gate])
    assert use.metrics == (*MODALITY_METRICS["video"], *MODALITY_METRICS["audio"], *more)
