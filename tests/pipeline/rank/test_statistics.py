"""The report of a ranking: agreement of metrics, win rates, distributions and statistics, against pandas and loops."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pandas as pd
import pytest

from pipeline.rank.pairing import RANKED_METRICS, rank_pairs
from pipeline.rank.text import describe
from tests.pipeline.rank.ranking_tables import UNIT, one_prompt, random_table


def signed(table: pd.DataFrame) -> pd.DataFrame:
    return table[list(RANKED_METRICS)].assign(desync=-table["desync"])


def matrix(report: dict, name: str) -> np.ndarray:
    rows = [[report[name][one][other] for other in RANKED_METRICS] for one in RANKED_METRICS]
    return np.array(rows, dtype=float)


@pytest.fixture(scope="module")
def uneven() -> pd.DataFrame:
    """Correlated metrics, unequal numbers of candidates, ties and a missing score."""
    table = random_table(50, num_candidates=5, seed=2).drop(index=[0, 6, 7, 8, 9, 31]).reset_index(drop=True)
    table["motion_quality"] = (table["visual_quality"] + 0.5 * table["motion_quality"]).round(0)
    table["desync"] = table["desync"] + table["ib_av"]
    return table.assign(ib_ta=table["ib_ta"].mask(table["candidate_id"] == "p0003/2"))


def test_conflict_is_the_share_of_candidate_pairs_ordered_differently(uneven: pd.DataFrame) -> None:
    known = uneven.dropna()
    against, both = np.zeros((7, 7)), np.zeros((7, 7))
    for _, group in signed(known).groupby(known["prompt_id"]):
        for first, second in itertools.combinations(group.to_numpy(), 2):
            sign = np.sign(first - second)
            against += np.outer(sign, sign) < 0
            both += np.outer(sign, sign) != 0
    np.testing.assert_allclose(matrix(rank_pairs(uneven).report, "conflict"), against / both, atol=1e-6)
    assert against[0, 1] / both[0, 1] < 0.3 < against[5, 6] / both[5, 6]


def test_correlations_equal_those_of_pandas(uneven: pd.DataFrame) -> None:
    report, known = rank_pairs(uneven).report, uneven.dropna()
    values = signed(known)
    np.testing.assert_allclose(matrix(report, "correlation"), values.corr(), atol=1e-6)
    within = values - values.groupby(known["prompt_id"]).transform("mean")
    np.testing.assert_allclose(matrix(report, "correlation_within_prompts"), within.corr(), atol=1e-6)


def test_agreement_does_not_depend_on_the_scale(uneven: pd.DataFrame) -> None:
    own, other = rank_pairs(uneven).report, rank_pairs(uneven, statistics=UNIT).report
    np.testing.assert_allclose(matrix(other, "correlation"), matrix(own, "correlation"), atol=1e-6)
    np.testing.assert_array_equal(matrix(other, "conflict"), matrix(own, "conflict"))


def test_metric_that_never_varies_has_no_correlation_and_no_conflict() -> None:
    table = random_table().assign(ib_tv=0.1)
    table["ib_ta"] = table["prompt_id"].str[1:].astype(float) / 7  # varies between prompts alone
    report = rank_pairs(table).report
    assert report["correlation"]["ib_tv"]["ib_av"] is None
    assert report["correlation"]["ib_ta"]["ib_av"] is not None
    assert report["correlation_within_prompts"]["ib_ta"]["ib_av"] is None
    assert report["conflict"]["ib_ta"]["ib_av"] is None
    assert report["statistics"]["ib_tv"]["std"] == 0.0


def test_win_rates_per_metric() -> None:
    report = rank_pairs(one_prompt((1, 1, 0), (0, 0, 0), (2, 0, 1), first_index=-1)).report
    rates = report["ground_truth_wins"]["metric_win_rate"]
    assert (rates["visual_quality"], rates["ib_ta"], rates["desync"]) == (0.5, 1.0, 0.25)
    table = pd.concat(
        [one_prompt((1, 1, 1), (0, 0, 0), prompt_id="p"), one_prompt((2, 2, 2), (1, 1, 1), prompt_id="q")]
    )
    table = table.astype(dict.fromkeys(RANKED_METRICS, float))
    table.loc[table["candidate_id"] == "q/0", ["ib_tv", "visual_quality"]] = [0.5, 1.0]
    shares = rank_pairs(table).report["chosen_is_better"]
    assert shares == dict.fromkeys(RANKED_METRICS, 1.0) | {"ib_tv": 0.5, "visual_quality": 0.75}


def test_histograms_count_every_score_and_every_margin(uneven: pd.DataFrame) -> None:
    result = rank_pairs(uneven)
    for metric in RANKED_METRICS:
        histogram, values = result.report["distributions"][metric], uneven[metric].dropna()
        assert (histogram["low"], histogram["high"]) == (values.min(), values.max())
        assert sum(histogram["generated"] + histogram["ground_truth"]) == len(values)
        truth = uneven["is_ground_truth"] & uneven[metric].notna()
        assert sum(histogram["ground_truth"]) == truth.sum()
    desync = result.report["distributions"]["desync"]
    counts, _ = np.histogram(uneven["desync"], bins=40)
    both = np.add(desync["generated"], desync["ground_truth"])
    assert np.abs(both - counts).sum() <= 2  # a value on an edge may fall to either side
    assert sum(result.report["distributions"]["margin"]["pairs"]) == len(result.pairs)


def test_statistics_of_a_table_give_its_own_ranking_again(uneven: pd.DataFrame) -> None:
    first = rank_pairs(uneven)
    saved = json.loads(json.dumps(first.report))["statistics"]
    again = rank_pairs(uneven, statistics=saved)
    pd.testing.assert_frame_equal(again.pairs, first.pairs)
    part = rank_pairs(uneven[uneven["prompt_id"] < "p0020"], statistics=saved).pairs
    wanted = first.pairs[first.pairs["prompt_id"] < "p0020"]
    pd.testing.assert_frame_equal(part, wanted.reset_index(drop=True))
    assert not part.empty


def test_statistics_that_lack_a_metric_are_refused(uneven: pd.DataFrame) -> None:
    lacking = {name: values for name, values in UNIT.items() if name != "ib_tv"}
    with pytest.raises(ValueError, match="ib_tv"):
        rank_pairs(uneven, statistics=lacking)


@pytest.mark.parametrize("strategy", ["modality_micro", "modality_macro", "agnostic", "inconsistent"])
def test_text_of_every_strategy_and_of_an_empty_table(strategy: str, uneven: pd.DataFrame) -> None:
    report = rank_pairs(uneven, strategy).report
    text = describe(report)
    assert f"Ranking by {strategy}" in text
    assert "1 left out for missing scores (ib_ta 1)" in text
    assert "0 of 0 prompts" in describe(rank_pairs(uneven.head(0), strategy).report)
