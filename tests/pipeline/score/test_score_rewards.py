"""Weights, protocol and pools of rewards in the scoring stage, on real Ray with real files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from core.cli import parse_config
from pipeline.run import RunConfig
from pipeline.sample.command import sample
from pipeline.sample.config import SampleConfig
from pipeline.score.command import plan, score
from pipeline.score.config import ScoreConfig
from pipeline.score.settings import RewardConfig, choose_rewards

FAKES, WEIGHTED = "tests.pipeline.fakes", "tests.rewards.score_fakes:Weighted"


@pytest.fixture(scope="module")
def sampled(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three prompts of three candidates each."""
    folder = tmp_path_factory.mktemp("sampled")
    rows = [{"prompt_id": name, "prompt": name} for name in ("a", "b", "POISON")]
    prompts = folder / "prompts.jsonl"
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sample(SampleConfig(prompts=prompts, output_dir=folder / "run", model=f"{FAKES}:FakeGenerator"))
    return folder / "run"


@pytest.fixture
def run_dir(sampled: Path, tmp_path: Path) -> Path:
    """The sampled run without scores."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "candidates").symlink_to(sampled / "candidates")
    return tmp_path / "run"


def weights(folder: Path, value: float) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "weighted.txt").write_text(str(value))
    return str(folder)


def scores(run_dir: Path) -> pd.DataFrame:
    return pd.read_parquet(run_dir / "scores" / "scores.parquet").set_index("candidate_id")


def made_by(run_dir: Path) -> tuple[dict, str]:
    metadata = pq.read_schema(run_dir / "scores" / "scores.parquet").metadata
    return json.loads(metadata[b"avdpo.rewards"]), metadata[b"avdpo.protocol"].decode()


def test_scores_follow_weights_and_protocol_and_others_stay(run_dir: Path, tmp_path: Path) -> None:
    def config(*rewards: str, **changes: object) -> ScoreConfig:
        return ScoreConfig(output_dir=run_dir, rewards=list(rewards), **changes)

    score(config(f"{FAKES}:LoudnessReward"))
    first = scores(run_dir)
    journal = run_dir / "scores" / "journal.jsonl"
    journal.write_text(journal.read_text().replace('"weights": null, "weights_path": null, ', ""))  # as it once was
    assert "left 0" in plan(config(f"{FAKES}:LoudnessReward"))
    both = (f"{FAKES}:LoudnessReward", WEIGHTED)
    path = weights(tmp_path / "weights", 2.0)
    score(config(*both, reward_weights=path))
    assert scores(run_dir)["weighted"].tolist() == [2.0] * 9
    pd.testing.assert_series_equal(scores(run_dir)["loudness"], first["loudness"])
    rewards, protocol = made_by(run_dir)
    assert protocol == "correct"
    assert rewards["weighted"]["path"] == path
    assert rewards["loudness"] == {"version": "1", "weights": None, "path": None}

    weights(tmp_path / "weights", 3.0)  # trained again, in the same place
    again = config(*both, reward_weights=path)
    assert "left 9" in plan(again)
    score(again)
    assert scores(run_dir)["weighted"].tolist() == [3.0] * 9
    assert made_by(run_dir)[0]["weighted"]["weights"] != rewards["weighted"]["weights"]

    score(config(*both, reward_weights=path, protocol="javisbench"))
    assert scores(run_dir)["weighted"].tolist() == [-3.0] * 9
    assert made_by(run_dir)[1] == "javisbench"
    assert made_by(run_dir)[0]["weighted"]["version"] == "1+javisbench"

    # Known already under this protocol, and loudness never depended on it: nothing is left to score.
    summary = score(config(*both, reward_weights=path))
    assert (summary.wanted, summary.skipped) == (9, 9)
    assert scores(run_dir)["weighted"].tolist() == [3.0] * 9
    assert journal.read_text().count('"reward": "loudness"') == 9

    # A run without the networks keeps their scores under its protocol and records their weights.
    score(config(f"{FAKES}:LoudnessReward"))
    assert scores(run_dir)["weighted"].tolist() == [3.0] * 9
    assert made_by(run_dir)[0]["weighted"]["path"] == path


def test_a_pool_per_reward_gives_the_same_table(run_dir: Path, tmp_path: Path) -> None:
    rewards = [f"{FAKES}:CrashingReward", WEIGHTED, f"{FAKES}:LoudnessReward"]
    options = {"rewards": rewards, "reward_weights": weights(tmp_path / "w", 2.0), "max_tries": 1}
    summary = score(ScoreConfig(output_dir=run_dir, pool_per_reward=True, **options))
    assert (summary.wanted, summary.done, summary.failed) == (9, 6, 3)
    table = scores(run_dir)
    assert table["weighted"].tolist() == [2.0] * 9  # one reward's crash does not cost another's scores
    assert table["loudness"].notna().all()
    assert table["ib_av"].isna().tolist() == [False] * 6 + [True] * 3
    assert table["error"].iloc[6:].str.contains("died").all()

    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "candidates").symlink_to(run_dir / "candidates")
    score(ScoreConfig(output_dir=tmp_path / "other", **options))
    together = scores(tmp_path / "other")
    pd.testing.assert_frame_equal(table.iloc[:6], together.iloc[:6])


def test_prompts_of_one_task_are_scored_in_batches_of_their_own(run_dir: Path) -> None:
    """Three prompts in one task, more decoders than cores, batches that split a prompt: the same scores."""
    name = f"{FAKES}:FakeReward"
    score(ScoreConfig(output_dir=run_dir, rewards=[name], batch_size=3, clip_batch_size=2, num_decoders=4))
    table = scores(run_dir)
    (run_dir / "scores").rename(run_dir / "scores_before")
    score(ScoreConfig(output_dir=run_dir, rewards=[name], clip_batch_size=1))
    columns = ["ib_av", "desync", "visual_quality"]
    np.testing.assert_allclose(table[columns], scores(run_dir)[columns], rtol=1e-6)
    assert table.index.tolist() == scores(run_dir).index.tolist()
    assert table["ib_av"].nunique() == 9


def test_missing_weights_are_reported_before_any_worker_starts(run_dir: Path) -> None:
    for given, words in ((None, "needs weights"), ("nowhere", "do not exist")):
        config = ScoreConfig(output_dir=run_dir, rewards=[WEIGHTED], reward_weights=given)
        with pytest.raises(ValueError, match=words):
            plan(config)


def test_a_relative_folder_of_weights_reaches_workers_in_other_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights(tmp_path / "w", 1.0)
    monkeypatch.chdir(tmp_path)
    chosen = choose_rewards(RewardConfig(rewards=[WEIGHTED, "verifiable"], reward_weights="w"))
    assert chosen[WEIGHTED].weights_path == str(tmp_path / "w")
    assert chosen["verifiable"].weights_path is None
    assert chosen["verifiable"].weights is None


def test_run_accepts_every_setting_of_scoring() -> None:
    flags = ["--prompts", "p.csv", "--output_dir", "o", "--rewards", "verifiable", "--reward_weights", "tiny"]
    config = parse_config(RunConfig, [*flags, "--protocol", "javisbench", "--pool_per_reward", "--dtype", "bfloat16"])
    passed = config.of(ScoreConfig)
    assert (passed.reward_weights, passed.protocol, passed.pool_per_reward) == ("tiny", "javisbench", True)
    assert passed.dtype == "bfloat16"
