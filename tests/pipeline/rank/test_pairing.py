"""Pairs from scores: equal to the published tool's, and consistent with its documented rules."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipeline.rank.choice import DISAGREE, GROUND_TRUTH_LOST, TIED, TOO_FEW
from pipeline.rank.pairing import RANKED_METRICS, rank_pairs
from tests.golden_files import golden_path
from tests.pipeline.rank.ranking_tables import STRATEGIES, one_prompt, random_table, with_ids


@pytest.mark.parametrize("name", ["micro", "macro", "micro_generated_only", "macro_generated_only"])
def test_pairs_equal_every_file_of_the_published_tool_row_for_row(name: str) -> None:
    golden = pd.read_csv(golden_path(f"ranking/pairs_{name}.csv"))
    rewards = pd.read_csv(golden_path("ranking/rewards.csv"))
    given = ["visual_quality", "motion_quality", "ib_tv", "audio_quality", "ib_ta", "ib_av"]
    table = rewards[["text", *given]].rename(columns={"text": "prompt"})
    table = table.assign(
        prompt_id=rewards["id"],
        index=rewards["pred_video_path"].str.extract(r"-(\d+)\.mp4$", expand=False).fillna(-1).astype(int),
        desync=rewards["desync_scores"],
        video_path=rewards["pred_video_path"],
        audio_path=rewards["pred_audio_path"],
        num_frames=rewards["pred_num_frames"],
        height=rewards["pred_height"],
        width=rewards["pred_width"],
        fps=rewards["pred_fps"],
    )
    strategy = f"modality_{name.split('_')[0]}"
    pairs = rank_pairs(with_ids(table), strategy, "never" if "generated" in name else "any").pairs
    columns = {
        "prompt_id": "id",
        "prompt": "text",
        "chosen_video_path": "path",
        "chosen_audio_path": "audio_path",
        "rejected_video_path": "path_reject",
        "rejected_audio_path": "audio_path_reject",
        **{column: column for column in ("num_frames", "height", "width", "fps")},
    }
    assert len(golden) > 200
    assert pairs[list(columns)].values.tolist() == golden[list(columns.values())].values.tolist()


def brute_force(table: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """The published rule, written with loops."""
    signed = table[list(RANKED_METRICS)].assign(desync=-table["desync"])
    z = (signed - signed.mean()) / signed.std()
    scores = np.stack([z.iloc[:, :3].mean(axis=1), z.iloc[:, 3:5].mean(axis=1), z.iloc[:, 5:].mean(axis=1)], axis=1)
    pairs = {}
    for prompt_id, group in table.reset_index(drop=True).groupby("prompt_id"):
        best = 0.0
        for i in group.index:
            for j in group.index:
                margins = scores[i] - scores[j]
                if (margins > 0).all() and margins.sum() > best:
                    best = margins.sum()
                    pairs[prompt_id] = (table["candidate_id"].iloc[i], table["candidate_id"].iloc[j])
    return pairs


def test_vectorised_ranking_equals_a_loop_with_unequal_numbers_of_candidates() -> None:
    table = random_table(seed=3).drop(index=[0, 5, 6, 40, 41, 42, 43, 100]).reset_index(drop=True)
    pairs = rank_pairs(table).pairs
    rows = pairs[["prompt_id", "chosen_candidate_id", "rejected_candidate_id"]].itertuples(index=False)
    ours = {prompt_id: (chosen, rejected) for prompt_id, chosen, rejected in rows}
    assert ours == brute_force(table)


def test_arrow_tables_give_what_data_frames_give() -> None:
    table = random_table()
    arrow = pa.concat_tables([pa.Table.from_pandas(part) for part in (table[:100], table[100:])])
    pd.testing.assert_frame_equal(rank_pairs(arrow).pairs, rank_pairs(table).pairs)
    categories = table.assign(prompt_id=table["prompt_id"].astype("category"))
    assert rank_pairs(categories[table["prompt_id"] > "p0029"]).report["num_prompts"] == 30


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_row_order_does_not_matter(strategy: str) -> None:
    table = random_table()
    expected, shuffled = rank_pairs(table, strategy), rank_pairs(table.sample(frac=1, random_state=1), strategy)
    pd.testing.assert_frame_equal(shuffled.pairs, expected.pairs, check_exact=True)
    assert shuffled.report == expected.report


def test_negating_every_metric_swaps_winner_and_loser() -> None:
    table = random_table()
    negated = table.assign(**{name: -table[name] for name in RANKED_METRICS})
    pairs, swapped = rank_pairs(table).pairs, rank_pairs(negated).pairs
    assert len(pairs) > 5
    assert swapped["chosen_candidate_id"].tolist() == pairs["rejected_candidate_id"].tolist()
    assert swapped["rejected_candidate_id"].tolist() == pairs["chosen_candidate_id"].tolist()
    np.testing.assert_allclose(swapped["margin"], pairs["margin"], rtol=1e-12)


@pytest.mark.parametrize("strategy", ["modality_micro", "modality_macro"])
def test_winner_is_strictly_better_everywhere_and_margins_add_up(strategy: str) -> None:
    pairs = rank_pairs(random_table(), strategy).pairs
    for modality in ("video", "audio", "audio_video"):
        margin = pairs[f"chosen_{modality}_score"] - pairs[f"rejected_{modality}_score"]
        assert (margin > 0).all()
        np.testing.assert_allclose(pairs[f"margin_{modality}"], margin)
    np.testing.assert_allclose(pairs["margin"], pairs.filter(regex="margin_").sum(axis=1))
    assert pairs["pair_id"].tolist() == (pairs["chosen_candidate_id"] + ">" + pairs["rejected_candidate_id"]).tolist()


def test_low_desync_is_good() -> None:
    table = one_prompt((1, 1, 0), (0, 0, 0)).assign(ib_av=0.0, desync=[0.1, 0.8])
    assert rank_pairs(table).pairs["chosen_candidate_id"].tolist() == ["p/0"]
    assert rank_pairs(table.assign(desync=[0.8, 0.1])).pairs.empty


def test_prompts_without_a_pair_have_a_reason() -> None:
    tables = {
        TOO_FEW: one_prompt((1, 1, 1)),
        DISAGREE: one_prompt((1, 0, 0), (0, 1, 1)),
        TIED: one_prompt((1, 1, 1), (1, 1, 1)),
        GROUND_TRUTH_LOST: one_prompt((0, 0, 0), (1, 1, 1), first_index=-1),
    }
    table = pd.concat(
        [
            frame.assign(prompt_id=reason, candidate_id=reason + frame["candidate_id"])
            for reason, frame in tables.items()
        ]
    )
    result = rank_pairs(table, ground_truth="winner_only")
    assert result.pairs.empty
    assert dict(result.attrition.itertuples(index=False)) == {reason: reason for reason in tables}
    assert result.report["attrition"] == dict.fromkeys(tables, 1)
    assert result.report["yield"] == 0.0


def test_equal_margins_go_to_the_first_candidate() -> None:
    result = rank_pairs(one_prompt((1, 1, 1), (1, 1, 1), (0, 0, 0), (0, 0, 0), first_index=-1))
    assert result.pairs["chosen_candidate_id"].tolist() == ["p/gt"]
    assert result.pairs["rejected_candidate_id"].tolist() == ["p/1"]


@pytest.mark.parametrize(
    ("ground_truth", "chosen", "rejected"),
    [("any", "p/0", "p/gt"), ("winner_only", "p/0", "p/1"), ("never", "p/0", "p/1")],
)
def test_ground_truth_policy(ground_truth: str, chosen: str, rejected: str) -> None:
    table = one_prompt((0, 0, 0), (2, 2, 2), (1, 1, 1), first_index=-1)
    pairs = rank_pairs(table, ground_truth=ground_truth).pairs
    assert pairs[["chosen_candidate_id", "rejected_candidate_id"]].to_numpy().tolist() == [[chosen, rejected]]


def test_win_rate_of_ground_truth_is_reported_under_every_policy() -> None:
    table = one_prompt((1, 1, 0), (0, 0, 0), (2, 0, 1), first_index=-1)
    for policy in ("any", "winner_only", "never"):
        wins = rank_pairs(table, ground_truth=policy).report["ground_truth_wins"]
        assert wins["comparisons"] == 2
        assert wins["win_rate"] == {"video": 0.5, "audio": 1.0, "audio_video": 0.25, "all": 0.0}


def test_candidate_with_a_missing_score_is_left_out_and_counted() -> None:
    table = random_table()
    best = rank_pairs(table).pairs["chosen_candidate_id"].iloc[0]
    holed = table.assign(ib_ta=table["ib_ta"].mask(table["candidate_id"] == best))
    result = rank_pairs(holed)
    assert best not in result.pairs["chosen_candidate_id"].tolist()
    assert result.report["candidates"]["left_out_for_missing_scores"] == 1
    assert result.report["candidates"]["missing_scores"]["ib_ta"] == 1
    without = rank_pairs(table[table["candidate_id"] != best])
    pd.testing.assert_frame_equal(result.pairs, without.pairs)


def test_metric_that_never_varies_changes_nothing() -> None:
    table = one_prompt((1, 1, 1), (0, 0, 0)).assign(motion_quality=0.1)  # a mean of 0.1s is not exactly 0.1
    pairs = rank_pairs(table).pairs
    assert pairs["chosen_candidate_id"].tolist() == ["p/0"]
    assert np.isfinite(pairs["margin"]).all()


def test_agnostic_pairs_best_with_worst_by_the_sum_alone() -> None:
    table = one_prompt((2, 0, 1), (0, 1, 0), (0, 1, 0))
    pair = rank_pairs(table, "agnostic").pairs.iloc[0]
    assert (pair["chosen_candidate_id"], pair["rejected_candidate_id"]) == ("p/0", "p/1")
    assert pair["margin_audio"] < 0 < pair["margin"]
    assert rank_pairs(table).pairs.empty


def test_inconsistent_takes_picture_and_sound_from_different_candidates() -> None:
    table = one_prompt((1, 0, 0), (0, 1, 0)).assign(
        video_path=["0.mp4", "1.mp4"], audio_path=["0.wav", "1.wav"], latents_path=["0.st", "1.st"], seed=[10, 11]
    )
    pair = rank_pairs(table, "inconsistent").pairs.iloc[0]
    assert (pair["chosen_candidate_id"], pair["rejected_candidate_id"]) == ("p/0+p/1", "p/1+p/0")
    assert (pair["chosen_video_path"], pair["chosen_audio_path"]) == ("0.mp4", "1.wav")
    assert (pair["rejected_video_path"], pair["rejected_audio_path"]) == ("1.mp4", "0.wav")
    assert pd.isna(pair[["chosen_latents_path", "chosen_seed", "chosen_ib_av", "margin_audio_video"]]).all()
    assert pair["margin_video"] > 0
    assert pair["margin_audio"] > 0


def test_geometry_comes_from_the_smaller_and_the_shorter_clip() -> None:
    table = one_prompt((1, 1, 1), (0, 0, 0)).assign(
        height=[64, 32], width=[64, 32], num_frames=[33, 65], fps=[16.0, 16.0]
    )
    pair = rank_pairs(table).pairs.iloc[0]
    assert pair[["height", "width", "num_frames"]].tolist() == [32, 32, 33]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table.drop(columns="desync"), ["desync", "synchformer", "pipeline.score"]),
        (lambda table: table.drop(columns="prompt_id"), ["prompt_id"]),
        (lambda table: pd.concat([table, table.head(1)]), ["p0000/gt", "more than once"]),
        (lambda table: table.assign(ib_av=np.inf), ["ib_av", "infinite"]),
        (lambda table: table.assign(ib_av="good"), ["ib_av", "double"]),
        (lambda table: table.assign(prompt_id=table["prompt_id"].mask(table["index"] == 1)), ["prompt_id", "row 2"]),
    ],
)
def test_unusable_tables_are_named(change, words: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        rank_pairs(change(random_table()))
    assert all(word in str(caught.value) for word in words)


def test_unknown_strategy_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="modality_micro, modality_macro, agnostic, inconsistent"):
        rank_pairs(random_table(), "best")


def test_no_candidates_give_no_pairs() -> None:
    result = rank_pairs(random_table().head(0))
    assert result.pairs.empty
    assert result.report["num_prompts"] == 0
