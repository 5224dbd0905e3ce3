"""The figures of a benchmark: means, intervals, distances and counts, over everything and by category."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.judges.metrics import METRICS, Metric, choose_metrics
from evaluation.run.results import Measured, MetricResult, metric_results

CATEGORIES = {
    "Sound type": {"Ambient": np.array([0, 1, 2, 3]), "Speech": np.array([4, 5]), "Musical": np.array([], int)}
}
BY_NAME = {metric.name: metric for metric in METRICS}


def results(measured: dict[str, Measured], rows: np.ndarray) -> dict[str, MetricResult]:
    pairs: dict[str, tuple[Metric, Measured]] = {name: (BY_NAME[name], one) for name, one in measured.items()}
    found = metric_results(pairs, rows, CATEGORIES, protocol="correct", num_bootstrap=500, seed=0)
    return {one.metric.name: one for one in found}


def test_a_score_is_averaged_over_the_samples_that_have_it() -> None:
    scores = np.array([0.1, 0.2, 0.3, np.nan, 0.5, 0.7], np.float32)
    result = results({"ib_av": Measured(scores)}, np.arange(6))["ib_av"]
    assert result.overall.value == pytest.approx(0.36)
    assert result.overall.num_samples == 5
    assert result.overall.low < 0.36 < result.overall.high
    speech = result.categories["Sound type"]["Speech"]
    assert (speech.value, speech.num_samples) == (pytest.approx(0.6), 2)
    empty = result.categories["Sound type"]["Musical"]
    assert (empty.value, empty.low, empty.num_samples) == (None, None, 0)


def test_several_samples_of_a_caption_are_no_further_evidence() -> None:
    generator = np.random.default_rng(0)
    per_row = generator.normal(size=40)
    once = results({"ib_av": Measured(per_row)}, np.arange(40))["ib_av"].overall
    thrice = results({"ib_av": Measured(np.repeat(per_row, 3))}, np.repeat(np.arange(40), 3))["ib_av"].overall
    assert thrice.value == pytest.approx(once.value)
    assert (thrice.low, thrice.high) == (pytest.approx(once.low), pytest.approx(once.high))


def test_a_distance_grows_with_noise_and_says_what_it_compared() -> None:
    generator = np.random.default_rng(0)
    real = generator.normal(size=(60, 8)).astype(np.float32)
    rows = np.arange(60)
    distances = []
    for noise in (0.0, 1.0, 3.0):
        generated = real + noise * generator.normal(size=real.shape).astype(np.float32)
        generated[0] = np.nan  # a clip that could not be read
        figure = results({"fvd": Measured(generated, real, rows)}, rows)["fvd"].overall
        assert (figure.num_samples, figure.num_real, figure.low) == (59, 60, None)
        distances.append(figure.value)
    assert distances == sorted(distances)


def test_a_category_is_compared_with_its_own_ground_truth_or_with_none() -> None:
    generator = np.random.default_rng(0)
    real = generator.normal(size=(6, 3)).astype(np.float32)
    rows = np.arange(6)
    known = results({"fvd": Measured(real, real, rows)}, rows)["fvd"].categories["Sound type"]
    assert known["Ambient"].value == pytest.approx(0.0, abs=1e-6)
    assert (known["Speech"].num_real, known["Musical"].value) == (2, None)
    unknown = results({"fvd": Measured(real, real, None)}, rows)["fvd"]
    assert unknown.overall.value == pytest.approx(0.0, abs=1e-6)
    assert unknown.categories["Sound type"]["Ambient"].value is None


def test_metrics_are_chosen_by_name_or_group_in_the_order_of_the_table() -> None:
    assert [one.name for one in choose_metrics(["desync", "fvd", "text"])] == [
        "fvd",
        "ib_tv",
        "ib_ta",
        "clip_score",
        "clap_score",
        "desync",
    ]
    assert len(choose_metrics(["all"])) == len(METRICS)
    with pytest.raises(ValueError, match=r"no metric or group 'javiscore'. Did you mean 'javis_score'?"):
        choose_metrics(["javiscore"])
