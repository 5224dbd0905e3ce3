"""Real-world clips pass through sampling and scoring with the shipped preset."""

from __future__ import annotations

import pandas as pd
import pytest

from media import probe, read_clip
from pipeline.sample.command import sample
from pipeline.sample.config import SampleConfig
from pipeline.score.command import score
from pipeline.score.config import ScoreConfig
from tests.golden_files import real_clips


@pytest.mark.usefixtures("ray_session")
def test_real_clips_become_candidates_and_are_scored(tmp_path):
    videos = real_clips()
    rows = [{"prompt_id": path.name, "prompt": "a street", "video_path": str(path)} for path in videos]
    pd.DataFrame(rows).to_csv(tmp_path / "prompts.csv", index=False)
    run = tmp_path / "run"
    config = SampleConfig(
        prompts=tmp_path / "prompts.csv", output_dir=run, num_candidates=1, num_actors=2, num_inference_steps=1
    )
    assert sample(config).failed == 0
    assert score(ScoreConfig(output_dir=run, num_actors=2)).failed == 0

    candidates = pd.read_parquet(run / "candidates" / "candidates.parquet").set_index("candidate_id")
    scores = pd.read_parquet(run / "scores" / "scores.parquet").set_index("candidate_id")
    assert len(candidates) == len(scores) == 2 * len(videos)
    for path in videos:
        name = f"{path.name}/gt"
        row = candidates.loc[name]
        clip = read_clip(run / "candidates" / row.video_path)
        assert clip.video.shape == (33, 64, 64, 3)
        assert (clip.fps, clip.sample_rate) == (16.0, 16_000 if probe(path).has_audio else 0)  # silence is not made up
        assert clip.video.std() > 5  # a picture, not a blank
        assert scores.loc[name, "visual_quality"] >= 0
        assert pd.isna(scores.loc[name, "error"])
