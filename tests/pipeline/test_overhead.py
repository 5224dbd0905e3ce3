"""The benchmark of the pipeline's overhead runs through both stages without a failed row."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from benchmarks import pipeline as benchmark


@pytest.mark.usefixtures("ray_session")
def test_the_overhead_benchmark_samples_and_scores_every_candidate(tmp_path: Path) -> None:
    seconds = benchmark.run(tmp_path / "run", 4, {"num_actors": 2, "batch_size": 2})
    assert min(seconds) > 0
    scores = pd.read_parquet(tmp_path / "run" / "scores" / "scores.parquet")
    assert scores["no_op"].tolist() == [0.0] * 16
