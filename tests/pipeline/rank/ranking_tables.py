"""Tables of candidates for the tests of ranking."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pipeline.rank.pairing import RANKED_METRICS

STRATEGIES = ("modality_micro", "modality_macro", "agnostic", "inconsistent")


def with_ids(scores: pd.DataFrame) -> pd.DataFrame:
    names = scores["index"].map(lambda index: "gt" if index == -1 else str(index))
    return scores.assign(candidate_id=scores["prompt_id"] + "/" + names, is_ground_truth=scores["index"] == -1)


def random_table(num_prompts: int = 60, num_candidates: int = 4, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(rng.normal(size=(num_prompts * num_candidates, len(RANKED_METRICS))), columns=RANKED_METRICS)
    table["prompt_id"] = [f"p{row // num_candidates:04d}" for row in range(len(table))]
    table["index"] = [row % num_candidates - 1 for row in range(len(table))]
    return with_ids(table)


def one_prompt(*qualities: tuple[float, float, float], first_index: int = 0, prompt_id: str = "p") -> pd.DataFrame:
    """Candidates of one prompt with these (video, audio, audio-video) qualities."""
    rows = []
    for index, (video, audio, both) in enumerate(qualities, start=first_index):
        values = [video, video, video, audio, audio, both, -both]
        rows.append({"prompt_id": prompt_id, "index": index, **dict(zip(RANKED_METRICS, values, strict=True))})
    return with_ids(pd.DataFrame(rows))


UNIT = {metric: {"mean": 0.0, "std": 1.0, "count": 2} for metric in RANKED_METRICS}  # scores stay what they are
