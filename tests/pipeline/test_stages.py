"""Sampling and scoring on real Ray with real files, and ranking of the results."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from core.ids import candidate_id, candidate_seed, stem
from core.lineage import UNKNOWN, parse_lineage
from core.schema import CANDIDATES, PAIRS
from jobs.stage import exit_status
from jobs.stops import WorkerStartError
from media import AVClip, probe, read_clip, write_clip
from pipeline.rank.command import rank
from pipeline.rank.config import RankConfig
from pipeline.rank.pairing import RANKED_METRICS
from pipeline.rank.pairs_folder import read_report
from pipeline.sample.command import sample
from pipeline.sample.config import SampleConfig
from pipeline.score.command import score
from pipeline.score.config import ScoreConfig
from tests.pipeline.fakes import FPS, HOSTILE, NUM_FRAMES, SAMPLE_RATE, SIZE, FakeReward

pytestmark = pytest.mark.usefixtures("ray_session")

FAKES = "tests.pipeline.fakes"


def write_prompts(folder: Path, rows: list[dict]) -> Path:
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def sample_config(prompts: Path, output_dir: Path, **changes: object) -> SampleConfig:
    settings = {"model": f"{FAKES}:FakeGenerator", "num_actors": 2, "num_candidates": 2} | changes
    return SampleConfig(prompts=prompts, output_dir=output_dir, **settings)


def score_config(output_dir: Path, *rewards: str, **changes: object) -> ScoreConfig:
    names = [f"{FAKES}:{reward}" for reward in rewards or ("FakeReward",)]
    return ScoreConfig(output_dir=output_dir, rewards=names, num_actors=2, **changes)


def write_real_clip(path: Path) -> None:
    """Another size, rate and length than the candidates have."""
    rng = np.random.default_rng(0)
    video = rng.integers(0, 256, size=(40, 48, 80, 3), dtype=np.uint8)
    audio = (0.2 * rng.standard_normal((2, 2 * 44100))).clip(-1, 1).astype(np.float32)
    path.parent.mkdir(parents=True)
    write_clip(AVClip(video, 20.0, audio, 44100), path)


@pytest.fixture(scope="module")
def finished(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over hostile texts, one prompt with a real clip, sampled, scored and ranked."""
    folder = tmp_path_factory.mktemp("outer") / "inner"
    folder.mkdir()
    write_real_clip(folder / "clips" / "real <b>'clip'.mp4")
    rows = [{"prompt_id": text, "prompt": text, "fps": "theirs", "topic": "balls"} for text in HOSTILE]
    rows[0] |= {"video_path": "clips/real <b>'clip'.mp4", "audio_path": "clips/real <b>'clip'.wav"}
    prompts = write_prompts(folder, rows)
    sample(sample_config(prompts, folder / "run"))
    score(score_config(folder / "run"))
    rank(RankConfig(output_dir=folder / "run"))
    return folder / "run"


def test_candidates_table_has_every_candidate_once_in_order(finished: Path) -> None:
    table = pd.read_parquet(finished / "candidates" / "candidates.parquet")
    indices = [[-1, 0, 1] if text == HOSTILE[0] else [0, 1] for text in HOSTILE]
    wanted = [candidate_id(text, index) for text, some in zip(HOSTILE, indices, strict=True) for index in some]
    assert table["candidate_id"].tolist() == wanted
    assert table.columns[: len(CANDIDATES.names)].tolist() == CANDIDATES.names
    generated = table[~table["is_ground_truth"]]
    assert generated["seed"].tolist() == [
        candidate_seed(0, prompt_id, index)
        for prompt_id, index in zip(generated["prompt_id"], generated["index"], strict=True)
    ]
    assert table["prompt"].tolist() == table["prompt_id"].tolist()
    assert set(table["topic"]) == {"balls"}
    assert set(table["prompt_fps"]) == {"theirs"}
    assert table["error"].isna().all()
    assert (generated["generation_s"] > 0).all()
    assert table.loc[table["is_ground_truth"], "generation_s"].isna().all()


def test_every_file_is_where_the_table_says_and_none_is_elsewhere(finished: Path) -> None:
    folder = finished / "candidates"
    table = pd.read_parquet(folder / "candidates.parquet")
    named = {folder / path for name in ("video_path", "audio_path", "latents_path") for path in table[name].dropna()}
    assert {path for path in (folder / "media").rglob("*") if path.is_file()} == named
    assert {path.parent.name for path in named} == {stem(text) for text in HOSTILE}
    assert {path.name for path in finished.parent.iterdir()} == {"run", "clips", "prompts.jsonl"}
    assert {path.name for path in finished.iterdir()} == {"candidates", "scores", "pairs"}
    assert [path.name for path in finished.parents[1].iterdir()] == ["inner"]


def test_ground_truth_has_the_form_of_the_candidates(finished: Path) -> None:
    folder = finished / "candidates"
    table = pd.read_parquet(folder / "candidates.parquet").set_index("candidate_id")
    row = table.loc[f"{HOSTILE[0]}/gt"]
    assert row["is_ground_truth"]
    assert pd.isna(row["seed"])
    assert pd.isna(row["latents_path"])
    info = probe(folder / row["video_path"])
    assert (info.num_frames, info.height, info.width, info.fps) == (NUM_FRAMES, SIZE, SIZE, FPS)
    clip = read_clip(folder / row["video_path"], audio_path=folder / row["audio_path"])
    assert clip.audio.shape == (1, round(NUM_FRAMES / FPS * SAMPLE_RATE))
    columns = ["num_frames", "height", "width", "fps", "sample_rate", "duration_s"]
    assert row[columns].tolist() == table.loc[f"{HOSTILE[0]}/0", columns].tolist()


def test_scores_are_those_of_the_files(finished: Path) -> None:
    folder = finished / "candidates"
    candidates = pd.read_parquet(folder / "candidates.parquet")
    scores = pd.read_parquet(finished / "scores" / "scores.parquet")
    assert scores["candidate_id"].tolist() == candidates["candidate_id"].tolist()
    clips = [read_clip(folder / row.video_path, audio_path=folder / row.audio_path) for row in candidates.itertuples()]
    expected = FakeReward().score(clips, [None] * len(clips))
    for column, values in expected.items():
        np.testing.assert_array_equal(scores[column].to_numpy(np.float32), values.numpy(), err_msg=column)
    assert scores["error"].isna().all()
    field = pq.read_schema(finished / "scores" / "scores.parquet").field("desync")
    assert field.metadata == {
        b"higher_is_better": b"false",
        b"reward": FakeReward.name.encode(),
        b"needs": " ".join(sorted(FakeReward.needs)).encode(),
    }


def test_lineage_of_pairs_and_model_is_recorded(finished: Path) -> None:
    [training] = read_report(finished / "pairs")["lineage"]["trainings"]
    [use] = training["rewards"]
    assert (use["name"], use["version"], sorted(use["metrics"])) == (
        FakeReward.name,
        FakeReward.version,
        sorted(RANKED_METRICS),
    )
    metadata = pq.read_schema(finished / "candidates" / "candidates.parquet").metadata
    assert parse_lineage(metadata[b"avdpo.lineage"], finished) == UNKNOWN  # of a callable


def test_pairs_open_without_this_package_and_point_at_the_clips(finished: Path) -> None:
    from datasets import load_from_disk

    dataset = load_from_disk(str(finished / "pairs"))
    pairs = dataset.to_pandas()
    assert {
        "pair_id",
        *PAIRS.names,
        *(f"{side}_{name}" for side in ("chosen", "rejected") for name in FakeReward.columns),
    } == {*pairs.columns}
    report = json.loads((finished / "pairs" / "ranking.json").read_text())
    assert report["num_pairs"] == len(pairs) > 0
    assert report["num_prompts"] == len(HOSTILE) == len(pairs) + sum(report["attrition"].values())
    for side in ("chosen", "rejected"):
        assert all((finished / "pairs" / path).is_file() for path in pairs[f"{side}_video_path"])
    seeds = dict(zip(dataset["chosen_candidate_id"], dataset["chosen_seed"], strict=True))
    for key, seed in seeds.items():
        prompt_id, _, index = key.rpartition("/")
        assert seed == (None if index == "gt" else candidate_seed(0, prompt_id, int(index)))


def test_a_finished_run_changes_nothing(finished: Path) -> None:
    tables = [
        finished / name for name in ("candidates/candidates.parquet", "scores/scores.parquet", "pairs/ranking.json")
    ]
    before = [path.stat().st_mtime_ns for path in tables]
    prompts = finished.parent / "prompts.jsonl"
    summaries = [
        sample(sample_config(prompts, finished)),
        score(score_config(finished)),
        rank(RankConfig(output_dir=finished)),
    ]
    assert all(summary.wanted == summary.done == summary.skipped for summary in summaries)
    assert [path.stat().st_mtime_ns for path in tables] == before


def test_changed_settings_are_refused(finished: Path) -> None:
    prompts = finished.parent / "prompts.jsonl"
    with pytest.raises(ValueError, match=r"guidance_scale: None before, 3\.0 now; seed: 0 before, 7 now"):
        sample(sample_config(prompts, finished, seed=7, guidance_scale=3.0))


def test_a_lost_file_and_a_changed_prompt_are_made_again_and_nothing_else(tmp_path: Path) -> None:
    rows = [{"prompt_id": name, "prompt": name} for name in ("keep", "lose", "change")]
    config = sample_config(write_prompts(tmp_path, rows), tmp_path / "run")
    sample(config)
    score(score_config(tmp_path / "run"))
    before = pd.read_parquet(tmp_path / "run" / "scores" / "scores.parquet").set_index("candidate_id")
    files = {name: config.folder / "media" / stem(name) / "0.mp4" for name in ("keep", "lose", "change")}
    bits, times = files["lose"].read_bytes(), files["keep"].stat().st_mtime_ns

    files["lose"].unlink()
    rows[2]["prompt"] = "something else"
    write_prompts(tmp_path, rows)
    assert sample(config).skipped == 3
    assert score(score_config(tmp_path / "run")).skipped == 4
    after = pd.read_parquet(tmp_path / "run" / "scores" / "scores.parquet").set_index("candidate_id")
    assert files["lose"].read_bytes() == bits
    assert files["keep"].stat().st_mtime_ns == times
    pd.testing.assert_frame_equal(after.iloc[:4], before.iloc[:4])
    assert (after["audio_quality"].iloc[4:] != before["audio_quality"].iloc[4:]).all()


def test_rows_that_crash_or_raise_end_as_failures_and_the_rest_is_done(tmp_path: Path) -> None:
    rows = [{"prompt_id": f"good{number}", "prompt": "x"} for number in range(4)]
    rows[1] |= {"video_path": "none.mp4"}
    rows += [{"prompt_id": "crash", "prompt": "CRASH"}, {"prompt_id": "raise", "prompt": "RAISE"}]
    config = sample_config(write_prompts(tmp_path, rows), tmp_path / "run", batch_size=2, max_tries=2)
    summary = sample(config)
    assert (summary.wanted, summary.done, summary.failed) == (13, 8, 5)
    assert exit_status(summary, config) == 1
    assert exit_status(summary, dataclasses.replace(config, max_failures=5)) == 0
    failures = pd.read_parquet(config.folder / "failures.parquet").set_index("candidate_id")
    assert set(failures.index) == {"good1/gt", "crash/0", "crash/1", "raise/0", "raise/1"}
    assert "none.mp4" in failures.loc["good1/gt", "error"]
    assert "died" in failures.loc["crash/0", "error"]
    assert failures.loc["crash/0", "tries"] == 2
    assert failures.loc["raise/1", "error"] == "ValueError: no such thing"
    table = pd.read_parquet(config.folder / "candidates.parquet").set_index("candidate_id")
    assert table["error"].dropna().to_dict() == failures["error"].to_dict()

    scored = score(score_config(tmp_path / "run"))
    assert (scored.wanted, scored.failed) == (8, 0)
    rank(RankConfig(output_dir=tmp_path / "run"))
    report = json.loads((tmp_path / "run" / "pairs" / "ranking.json").read_text())
    assert report["candidates"]["left_out_for_missing_scores"] == 5
    assert report["attrition"]["fewer than two candidates with all scores"] == 2


def test_scoring_survives_a_clip_that_kills_the_worker_a_truncated_one_and_scores_that_are_no_numbers(
    tmp_path: Path,
) -> None:
    rows = [{"prompt_id": name, "prompt": name} for name in ("good", "POISON", "cut", "nan", "inf")]
    config = sample_config(write_prompts(tmp_path, rows), tmp_path / "run")
    sample(config)
    cut = config.folder / "media" / stem("cut") / "0.mp4"
    cut.write_bytes(cut.read_bytes()[:100])
    summary = score(score_config(tmp_path / "run", "CrashingReward", max_tries=2))
    assert (summary.wanted, summary.done, summary.failed) == (10, 5, 5)
    scores = pd.read_parquet(tmp_path / "run" / "scores" / "scores.parquet").set_index("candidate_id")
    assert scores.index[scores["error"].isna()].tolist() == ["good/0", "good/1", "cut/1", "nan/0", "nan/1"]
    assert scores.index[scores["ib_av"].notna()].tolist() == ["good/0", "good/1", "cut/1"]
    assert "0.mp4" in scores.loc["cut/0", "error"]
    assert "failed on 'inf/0': infinite ib_av" in scores.loc["inf/0", "error"]
    assert scores.loc["nan/1", "reasons"].startswith("ib_av: not defined")  # the contract for undefined, not an error
    assert scores.loc["nan/1", "ib_ta"] == scores.loc["nan/1", "ib_ta"]  # its other scores stay
    failures = pd.read_parquet(tmp_path / "run" / "scores" / "failures.parquet")
    assert failures["candidate_id"].tolist() == scores.index[scores["error"].notna()].tolist()

    score(score_config(tmp_path / "run", "LoudnessReward", max_failures=2))
    later = pd.read_parquet(tmp_path / "run" / "scores" / "scores.parquet").set_index("candidate_id")
    assert (
        "ib_av: not scored by 'crashing'" in later.loc["POISON/0", "reasons"]
    )  # kept columns have a reason for their nulls
    assert later["reasons"].notna().tolist() == scores["ib_av"].isna().tolist()


def test_scores_are_added_by_reward_and_version(tmp_path: Path) -> None:
    rows = [{"prompt_id": "a", "prompt": "a"}, {"prompt_id": "b", "prompt": "silence"}]
    sample(sample_config(write_prompts(tmp_path, rows), tmp_path / "run"))
    path = tmp_path / "run" / "scores" / "scores.parquet"
    journal = tmp_path / "run" / "scores" / "journal.jsonl"
    score(score_config(tmp_path / "run"))
    first = pd.read_parquet(path)

    score(score_config(tmp_path / "run", "FakeReward", "LoudnessReward"))
    second = pd.read_parquet(path)
    assert journal.read_text().count('"reward": "fake"') == 4  # not scored again
    pd.testing.assert_frame_equal(second[[*FakeReward.columns]], first[[*FakeReward.columns]])
    assert second["loudness"].isna().tolist() == [False, False, True, True]
    assert second["error"].isna().all()
    assert second["reasons"].iloc[2].startswith("loudness: ")

    score(score_config(tmp_path / "run", "NewerFakeReward"))
    third = pd.read_parquet(path)
    np.testing.assert_allclose(third["ib_av"], first["ib_av"] + 1, rtol=1e-6)
    assert third["loudness"].equals(second["loudness"])  # kept, though not asked for this time


def test_a_model_that_cannot_be_loaded_stops_the_stage_with_its_reason(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path, [{"prompt_id": "a", "prompt": "a"}])
    with pytest.raises(WorkerStartError, match="the weights are gone"):
        sample(sample_config(prompts, tmp_path / "run", model=f"{FAKES}:BrokenGenerator"))
