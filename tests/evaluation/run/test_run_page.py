"""The page of results in a real browser; what it shows, and that long names do not break it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.report import find_chromium, running_chromium
from evaluation.judges.choose import Skipped
from evaluation.judges.metrics import METRICS
from evaluation.run.benchmark import Benchmark
from evaluation.run.evaluate import Results
from evaluation.run.page import results_page
from evaluation.run.results import Measured, metric_results
from evaluation.run.samples import Problem, Sample, Samples

pytest.importorskip("playwright.sync_api", reason="needs the python package playwright (extra: dev)")
pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="needs a chromium on PATH (Debian: apt-get install chromium)"
)
LONG = "a_very_long_name_without_a_single_space_" * 8


def made_up_results(num_rows: int = 40) -> Results:
    rng = np.random.default_rng(0)
    rows = np.arange(num_rows)
    measured = {
        one.name: (one, Measured(rng.normal(size=num_rows)))
        if one.distance is None
        else (one, Measured(rng.normal(size=(num_rows, 3)), rng.normal(size=(num_rows, 3)), rows))
        for one in METRICS
    }
    categories = {"Sound type": {"Ambient": rows[:20], "Speech": rows[20:]}, "caption": {LONG: rows[:5]}}
    frame = pd.DataFrame({"prompt_id": [f"p{row}" for row in rows], "prompt": "<b>&</b>"})
    samples = [Sample(candidate_id=f"p{row}/0", row=row, video_path="x.mp4", audio_path=None) for row in rows.tolist()]
    return Results(
        benchmark=Benchmark(Path(f"{LONG}.csv"), frame, categories),
        samples=Samples(samples, [], {}),
        protocol="correct",
        metrics=metric_results(measured, rows, categories, protocol="correct", num_bootstrap=200, seed=0),
        scores={name: one.values for name, (metric, one) in measured.items() if metric.distance is None},
        skipped=[Skipped("cavp_score", "needs the weights <x>", f"python -m model.fetch --output {LONG}")],
        chosen={},
        problems=[Problem(f"{LONG}/0", "failed", f"/{LONG}/x.mp4: <script>alert(1)</script>")],
        generation_s=(12.5, num_rows),
    )


def test_the_page_shows_everything_and_nothing_goes_wrong(tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    path.write_text(results_page(made_up_results(), f"Evaluation of {LONG}"), encoding="utf-8")
    problems: list[str] = []
    with running_chromium() as browser:
        page = browser.new_page(viewport={"width": 900, "height": 900})
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("requestfailed", lambda request: problems.append(request.url))
        page.goto(path.as_uri())
        names = page.eval_on_selector_all("#metrics td:first-child", "cells => cells.map(cell => cell.textContent)")
        assert names == [one.heading for one in METRICS]
        assert page.locator("figure").count() == sum(one.distance is None for one in METRICS)
        drawn = page.eval_on_selector_all(
            "figure svg", "plots => plots.map(plot => [...plot.querySelectorAll('rect')].filter("
            "bar => bar.getBoundingClientRect().height > 0).length)"
        )  # fmt: skip
        assert min(drawn) > 5
        page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
        width = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert width[0] <= width[1]
        assert "12.5 s per clip (median of 40)" in re.sub(r"\s+", " ", page.inner_text("body"))
        assert page.locator("#problems tbody tr, #problems > tr").count() == 1
        for size in ((400, 800), (1400, 900)):
            page.set_viewport_size({"width": size[0], "height": size[1]})
            width = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
            assert width[0] <= width[1], size
    assert problems == []
