"""`--estimate` and what `--dry_run` says of the disk."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from jobs.estimate import Pace, describe_bytes, describe_pace, describe_seconds, describe_space, measure
from jobs.workers import Pool
from pipeline.sample import command as sample
from pipeline.sample.config import SampleConfig
from pipeline.score import command as score
from pipeline.score.config import ScoreConfig

FAKES = "tests.pipeline.fakes"
NUM_PROMPTS = 20


@pytest.mark.usefixtures("ray_session")
def test_an_estimate_keeps_its_rows_and_prints_time_and_disk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt_id": f"p{n}", "prompt": "x"}) + "\n" for n in range(NUM_PROMPTS)))
    settings = {"model": f"{FAKES}:SlowGenerator", "num_actors": 2, "num_candidates": 2, "batch_size": 4}
    config = SampleConfig(prompts=prompts, output_dir=tmp_path / "run", **settings)

    line = sample.estimate(config)
    assert "sample: 28 candidates left; about " in line  # 3 prompts on each worker are done
    assert " on 2 worker(s)" in line
    seconds = float(re.search(r"then ([\d.]+) s per prompt", line).group(1))
    assert 0.1 < seconds < 5  # a prompt takes a worker 0.3 s, and there are two
    assert not (config.folder / "candidates.parquet").exists()

    size = sum(path.stat().st_size for path in (config.folder / "media").rglob("*") if path.is_file())
    assert f"about {describe_bytes(size / 12 * 28)} of disk" in line
    assert f"left 28 (dry run: nothing written); output {config.folder}; about {describe_bytes(size / 12 * 28)}" in (
        sample.plan(config)
    )
    assert sample.sample(config).skipped == 12

    scoring = ScoreConfig(output_dir=tmp_path / "run", rewards=[f"{FAKES}:FakeReward"], num_actors=2)
    assert "FakeReward: 28 candidates left; about " in score.estimate(scoring)
    assert score.score(scoring).skipped == 12
    assert sample.estimate(config) == "sample: nothing is left to do"
    assert score.estimate(scoring) == "score: nothing is left to do"


@pytest.mark.usefixtures("ray_session")
def test_an_estimate_says_that_what_it_tried_has_failed(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.csv"
    prompts.write_text("prompt_id,prompt\n" + "".join(f"p{n},RAISE\n" for n in range(5)))
    config = SampleConfig(prompts=prompts, output_dir=tmp_path / "run", model=f"{FAKES}:FakeGenerator")
    told = "FAILED: 9 of those that were tried, the first being 'p0/0' (ValueError: no such thing)"
    assert told in sample.estimate(config)


def test_the_pace_leaves_out_the_start_and_each_workers_first_job() -> None:
    pool = Pool(2, 4, num_cpus=1, num_gpus=0, batch_size=1, max_tries=1)
    assert measure([{}, {}], lambda result: None, pool) is None
    pace = measure([{}, {}, {}, {}], lambda result: None, pool)
    assert pace is not None
    assert 0 <= pace.job_s < 0.1
    text = describe_pace(Pace(start_s=60, job_s=2), 3600, pool)
    assert text.startswith("about 2 h 1 min on 2 worker(s) or 1 h 1 min on 4 worker(s) (1 min to start, then 2 s per")


def test_numbers_are_written_for_people(tmp_path: Path) -> None:
    assert [describe_seconds(value) for value in (0.2, 61, 7300, 100_000)] == ["1 s", "2 min", "2 h 2 min", "1 d 3 h"]
    assert [describe_bytes(value) for value in (3, 1234, 5e8, 2.5e13)] == ["3 B", "1.23 kB", "500 MB", "25 TB"]
    assert "NOT ENOUGH" in describe_space(1e12, 10**6, tmp_path / "none" / "yet")
