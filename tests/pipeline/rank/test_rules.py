"""Margins, gates and several pairs per prompt: each rule is applied, and the report counts the pairs it removed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pipeline.rank.choice import DISAGREE, GATED, GROUND_TRUTH_LOST, TIED, TOO_CLOSE
from pipeline.rank.pairing import PairRules, rank_pairs
from tests.pipeline.rank.ranking_tables import UNIT, one_prompt, random_table

MODALITIES = ("video", "audio", "audio_video")


def ids(pairs: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(pairs["chosen_candidate_id"], pairs["rejected_candidate_id"], strict=True))


def ranked(table: pd.DataFrame, strategy: str = "modality_micro", ground_truth: str = "any", **rules):
    """Rank with margins and gates in units of the scores themselves."""
    return rank_pairs(table, strategy, ground_truth, rules=PairRules(**rules), statistics=UNIT)


def test_least_margins_keep_exactly_the_pairs_that_reach_them() -> None:
    table = random_table(400)
    everything = rank_pairs(table, rules=PairRules(pairs_per_prompt=99)).pairs
    kept = rank_pairs(table, rules=PairRules(min_margin=2.0, min_modality_margins={"audio": 0.8}, pairs_per_prompt=99))
    wanted = everything[(everything["margin"] >= 2.0) & (everything["margin_audio"] >= 0.8)]
    assert 20 < len(wanted) < len(everything)
    pd.testing.assert_frame_equal(kept.pairs, wanted.reset_index(drop=True))


def test_a_closer_pair_is_used_if_the_widest_breaks_a_minimum_margin() -> None:
    table = one_prompt((5, 5, 0.1), (2, 2, 2), (0, 0, 0))
    assert ids(ranked(table).pairs) == [("p/0", "p/2")]
    assert ids(ranked(table, min_modality_margins={"audio_video": 1.0}).pairs) == [("p/1", "p/2")]


def test_negative_margin_lets_the_winner_be_a_little_worse() -> None:
    table = one_prompt((1, 1, -0.2), (0, 0, 0))
    assert ranked(table).attrition["reason"].tolist() == [DISAGREE]
    assert ids(ranked(table, min_modality_margins={"audio_video": -0.2}).pairs) == [("p/0", "p/1")]
    assert ranked(table, min_modality_margins={"audio_video": -0.1}).pairs.empty


def test_margin_of_zero_takes_a_tie_in_that_modality_alone() -> None:
    table = one_prompt((1, 1, 0), (0, 0, 0))
    assert ranked(table).attrition["reason"].tolist() == [TIED]
    assert ids(ranked(table, min_modality_margins={"audio_video": 0.0}).pairs) == [("p/0", "p/1")]
    assert ranked(one_prompt((1, 1, 1), (1, 1, 1)), min_modality_margins=dict.fromkeys(MODALITIES, 0.0)).pairs.empty


def test_modality_left_out_decides_nothing_but_counts_in_the_sum() -> None:
    pairs = ranked(one_prompt((1, 1, -1.5), (0, 0, 0)), min_modality_margins={"audio_video": None}).pairs
    assert ids(pairs) == [("p/0", "p/1")]
    assert pairs["margin"].tolist() == pytest.approx([0.5])
    assert ranked(one_prompt((1, 1, -3), (0, 0, 0)), min_modality_margins={"audio_video": None}).pairs.empty


@pytest.mark.parametrize(
    ("gate", "chosen"),
    [
        ("audio_quality >= 2.5", ["p/1"]),
        ("audio_quality>=2", ["p/0"]),
        ("desync <= -2", ["p/0"]),
        ("audio_score >= 2.5", ["p/1"]),
        ("loudness >= 0.5", ["p/1"]),
        ("audio_quality >= 9", []),
    ],
)
def test_gate_is_for_the_winner(gate: str, chosen: list[str]) -> None:
    table = one_prompt((4, 2, 2), (1, 3, 1), (0, 0, 0)).assign(loudness=[np.nan, 0.5, 0.1])
    result = ranked(table, winner_gates=[gate])
    assert result.pairs["chosen_candidate_id"].tolist() == chosen
    assert result.pairs["rejected_candidate_id"].tolist() == ["p/2"] * len(chosen)
    assert result.attrition["reason"].tolist() == [GATED] * (1 - len(chosen))


def test_all_gates_must_be_passed() -> None:
    table = one_prompt((4, 2, 2), (1, 3, 1), (0, 0, 0))
    assert ranked(table, winner_gates=["audio_quality >= 2.5", "visual_quality >= 2"]).pairs.empty


def test_every_rule_has_its_reason_and_the_first_to_fail_is_named() -> None:
    tables = {
        TOO_CLOSE: one_prompt((1.1, 3, 3), (1, 0, 0), prompt_id="close"),
        GATED: one_prompt((9, 0.5, 9), (0, 0, 0), prompt_id="gated"),
        GROUND_TRUTH_LOST: one_prompt((0, 0, 0), (1, 0.5, 0.1), first_index=-1, prompt_id="lost"),
    }
    result = ranked(
        pd.concat(tables.values()),
        ground_truth="winner_only",
        min_modality_margins={"video": 0.5},
        winner_gates=["audio_quality >= 1"],
    )
    assert set(result.attrition["reason"]) == set(tables)
    assert dict(result.attrition[["reason", "prompt_id"]].itertuples(index=False)) == {
        reason: table["prompt_id"].iloc[0] for reason, table in tables.items()
    }
    stages = result.report["candidate_pairs"]
    assert list(stages.values()) == [3, 3, 2, 1, 0]


def test_several_pairs_are_the_best_ones_by_falling_margin() -> None:
    table = random_table(100, num_candidates=6)
    one, three = (rank_pairs(table, rules=PairRules(pairs_per_prompt=count)).pairs for count in (1, 3))
    everything = rank_pairs(table, rules=PairRules(pairs_per_prompt=1000)).pairs
    assert not everything["pair_id"].duplicated().any()
    assert everything["prompt_id"].is_monotonic_increasing
    assert everything.groupby("prompt_id")["margin"].apply(lambda margins: margins.is_monotonic_decreasing).all()
    pd.testing.assert_frame_equal(three, everything.groupby("prompt_id").head(3).reset_index(drop=True))
    pd.testing.assert_frame_equal(one, everything.groupby("prompt_id").head(1).reset_index(drop=True))
    assert len(one) < len(three) < len(everything)


def test_number_of_all_pairs_is_what_a_loop_finds() -> None:
    table = random_table(80, num_candidates=5).drop(index=[3, 7, 8, 100])
    everything = rank_pairs(table, rules=PairRules(pairs_per_prompt=1000)).pairs
    scored = table.assign(desync=-table["desync"]).set_index("candidate_id")
    count = 0
    z = (scored.iloc[:, :7] - scored.iloc[:, :7].mean()) / scored.iloc[:, :7].std()
    scores = np.stack([z.iloc[:, :3].mean(axis=1), z.iloc[:, 3:5].mean(axis=1), z.iloc[:, 5:].mean(axis=1)], axis=1)
    for rows in scored.reset_index().groupby("prompt_id").indices.values():
        count += sum((scores[i] > scores[j]).all() for i in rows for j in rows)
    assert len(everything) == count > 50


def test_equal_margins_keep_their_order_and_are_counted() -> None:
    table = one_prompt((1, 1, 1), (1, 1, 1), (0, 0, 0), (0, 0, 0), first_index=-1)
    result = ranked(table, pairs_per_prompt=3)
    assert ids(result.pairs) == [("p/gt", "p/1"), ("p/gt", "p/2"), ("p/0", "p/1")]
    assert result.report["tied_margins"] == 1


def test_inconsistent_takes_the_second_best_of_both_for_its_second_pair() -> None:
    result = rank_pairs(random_table(), "inconsistent", rules=PairRules(pairs_per_prompt=2))
    assert result.pairs["prompt_id"].value_counts().unique().tolist() == [2]
    margins = result.pairs.groupby("prompt_id")[["margin_video", "margin_audio"]]
    assert (margins.first() >= margins.last()).all().all()


def test_one_prompt_with_very_many_candidates_among_small_ones() -> None:
    table = pd.concat([random_table(40), random_table(1, num_candidates=300, seed=1).assign(prompt_id="p9999")])
    table = table.assign(candidate_id=table["prompt_id"] + "/" + table["index"].astype(str))
    result = rank_pairs(table, rules=PairRules(pairs_per_prompt=2))
    assert result.pairs["prompt_id"].tolist()[-2:] == ["p9999"] * 2
    assert result.report["candidate_pairs"]["compared"] == 40 * 6 + 300 * 299 // 2


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"min_margin": -1.0}, ["min_margin", "-1.0"]),
        ({"min_margin": float("nan")}, ["min_margin", "nan"]),
        ({"min_modality_margins": {"sound": 1.0}}, ["sound", "audio_video"]),
        ({"min_modality_margins": {"audio": "much"}}, ["audio", "much", "null"]),
        ({"pairs_per_prompt": 0}, ["pairs_per_prompt"]),
        ({"winner_gates": ["audio_quality > 5"]}, ["audio_quality > 5", ">= or <="]),
        ({"winner_gates": ["audio_quality >= good"]}, ["good"]),
        ({"winner_gates": ["audio_qualty >= 5"]}, ["audio_qualty", "audio_quality", "audio_score"]),
        ({"winner_gates": ["prompt_id >= 5"]}, ["prompt_id", "numbers"]),
    ],
)
def test_mistaken_rules_are_explained(rules: dict, words: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        ranked(random_table(), **rules)
    assert all(word in str(caught.value) for word in words)


def test_rules_that_a_strategy_cannot_have_are_refused() -> None:
    with pytest.raises(ValueError, match="inconsistent"):
        rank_pairs(random_table(), "inconsistent", rules=PairRules(min_margin=1.0))
    with pytest.raises(ValueError, match="modality_macro compares ranks"):
        rank_pairs(random_table(), "modality_macro", statistics=UNIT)
