"""Score tables of made-up models, as pipeline.sample and pipeline.score leave them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rewards import METRIC_COLUMNS


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., Path]:
    def make(
        name: str,
        scores: np.ndarray | None = None,
        *,
        num_prompts: int = 40,
        per_prompt: int = 1,
        shift: dict[str, float] | None = None,
        edit: Callable[[pd.DataFrame, pd.DataFrame], tuple[pd.DataFrame, pd.DataFrame]] | None = None,
    ) -> Path:
        ids = [(f"p{prompt:03d}", index) for prompt in range(num_prompts) for index in range(per_prompt)]
        if scores is None:
            scores = np.random.default_rng(0).normal(size=(len(ids), len(METRIC_COLUMNS)))
        candidates = pd.DataFrame(
            {
                "candidate_id": [f"{prompt}/{index}" for prompt, index in ids],
                "prompt_id": [prompt for prompt, _ in ids],
                "prompt": [f"a ball, number {prompt}" for prompt, _ in ids],
                "is_ground_truth": False,
                "seed": [2**62 + 2 * row for row in range(len(ids))],
                "duration_s": 2.0625,
                "error": pd.Series([None] * len(ids), dtype=object),
            }
        )
        table = pd.DataFrame(scores, columns=list(METRIC_COLUMNS))
        for column, value in (shift or {}).items():
            table[column] += value
        table.insert(0, "candidate_id", candidates["candidate_id"])
        table["error"] = pd.Series([None] * len(ids), dtype=object)
        if edit is not None:
            candidates, table = edit(candidates, table)
        for stage, frame in (("candidates", candidates), ("scores", table)):
            (tmp_path / name / stage).mkdir(parents=True)
            frame.to_parquet(tmp_path / name / stage / f"{stage}.parquet", index=False)
        return tmp_path / name

    return make
