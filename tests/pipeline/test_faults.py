"""Faults around a stage, on real Ray: killed workers, a full disk, a second run in the same folder.

Elsewhere: a killed driver (test_run), clips and prompts that crash their worker, truncated files and scores that are no
numbers (test_stages), workers that die one after another (test_workers).
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import av
import pandas as pd
import pytest
from safetensors import SafetensorError

from jobs.journal import Journal
from jobs.lock import lock_path
from jobs.stops import NoSpaceError, is_full_disk
from pipeline.sample.command import main as sample_command
from pipeline.sample.command import sample
from pipeline.sample.config import SampleConfig

ROOT = Path(__file__).parents[2]
FAKES = "tests.pipeline.fakes"


def write_prompts(folder: Path, prompts: list[str]) -> Path:
    path = folder / "prompts.jsonl"
    rows = [{"prompt_id": f"p{number}", "prompt": prompt} for number, prompt in enumerate(prompts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def config(prompts: Path, output_dir: Path, generator: str, **changes: object) -> SampleConfig:
    settings = {"model": f"{FAKES}:{generator}", "num_actors": 2, "num_candidates": 2} | changes
    return SampleConfig(prompts=prompts, output_dir=output_dir, **settings)


def journal_counts(folder: Path) -> Counter[str]:
    rows = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()[1:]]
    return Counter(row["candidate_id"] for row in rows)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("ray_session")
def test_results_do_not_depend_on_a_killed_worker_or_the_pool(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path, ["a", "b", f"KILL {tmp_path / 'killed'}", "c", "d", "e"])
    disturbed = config(prompts, tmp_path / "disturbed", "KilledOnceGenerator", batch_size=2)
    summary = sample(disturbed)
    assert (tmp_path / "killed").exists()
    assert (summary.wanted, summary.done, summary.failed) == (12, 12, 0)
    assert set(journal_counts(disturbed.folder).values()) == {1}

    single = config(prompts, tmp_path / "single", "KilledOnceGenerator", num_actors=1, batch_size=3)
    sample(single)
    assert files(disturbed.folder / "media") == files(single.folder / "media")
    tables = [pd.read_parquet(one.folder / "candidates.parquet") for one in (disturbed, single)]
    tables = [table.drop(columns="generation_s") for table in tables]  # times are not part of the results
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_ctrl_c_has_its_own_status_and_releases_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.sample.command.map_jobs", interrupted)
    stage = config(write_prompts(tmp_path, ["a"]), tmp_path / "run", "FakeGenerator")
    flags = ["--prompts", str(stage.prompts), "--output_dir", str(stage.output_dir), "--model", stage.model]
    assert sample_command(flags) == 130
    assert "the same command continues" in capsys.readouterr().err
    assert not lock_path(stage.folder).exists()


@pytest.mark.usefixtures("ray_session")
def test_a_lost_gpu_replaces_its_worker_and_later_prompts_succeed(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path, ["a", "BREAK", *"bcdef"])
    stage = config(prompts, tmp_path / "run", "BrokenGpuGenerator", num_actors=1, max_tries=2)
    summary = sample(stage)
    assert (summary.wanted, summary.done, summary.failed) == (14, 12, 2)
    failures = pd.read_parquet(stage.folder / "failures.parquet")
    assert set(failures["prompt_id"]) == {"p1"}
    assert set(failures["tries"]) == {2}
    assert failures["error"].str.contains("RuntimeError: CUDA error: an illegal memory access was met For").all()


@pytest.mark.usefixtures("ray_session")
def test_a_prompt_that_is_changed_and_changed_back_is_made_again(tmp_path: Path) -> None:
    stage = config(write_prompts(tmp_path, ["first"]), tmp_path / "run", "FakeGenerator")
    sample(stage)
    made = files(stage.folder / "media")
    write_prompts(tmp_path, ["second"])
    sample(stage)
    assert files(stage.folder / "media") != made
    write_prompts(tmp_path, ["first"])
    assert sample(stage).skipped == 0
    assert files(stage.folder / "media") == made


@pytest.mark.usefixtures("ray_session")
def test_a_clip_that_was_overwritten_or_cut_since_is_made_again(tmp_path: Path) -> None:
    """Overwrite a clip like a run with another prompt of the same id that was killed before it wrote to the journal."""
    stage = config(write_prompts(tmp_path, ["a", "b", "c"]), tmp_path / "run", "FakeGenerator")
    sample(stage)
    made = files(stage.folder / "media")
    first, second, _ = sorted((stage.folder / "media").glob("*/0.mp4"))
    first.write_bytes(first.read_bytes()[:-1])
    second.with_suffix(".safetensors").write_bytes(b"")
    assert sample(stage).skipped == 4
    assert files(stage.folder / "media") == made


@pytest.mark.usefixtures("ray_session")
def test_a_disk_that_is_full_for_a_worker_stops_the_stage_until_there_is_space(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.touch()
    prompts = write_prompts(tmp_path, ["a", "b", f"FULL {full}", *"cdefgh"])
    stage = config(prompts, tmp_path / "run", "FullDiskGenerator")
    with pytest.raises(NoSpaceError, match=r"no space is left for .*candidates.*Free some space"):
        sample(stage)
    assert not {"candidates.parquet", "failures.parquet"} & {path.name for path in stage.folder.iterdir()}
    assert not lock_path(stage.folder).exists()

    full.unlink()
    summary = sample(stage)
    assert (summary.wanted, summary.done, summary.failed) == (18, 18, 0)
    assert set(journal_counts(stage.folder).values()) == {1}


@pytest.mark.usefixtures("ray_session")
def test_a_disk_that_is_full_for_the_journal_stops_the_stage_until_there_is_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Journal._write
    num_writes = 0

    def fail_at_the_third(journal: Journal, rows: list[dict]) -> None:
        nonlocal num_writes
        num_writes += 1
        if num_writes == 3:
            journal._file.write(b'{"candidate_id": "torn')
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(journal, rows)

    stage = config(write_prompts(tmp_path, [*"abcd"]), tmp_path / "run", "FakeGenerator")
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "_write", fail_at_the_third)
        with pytest.raises(NoSpaceError, match="No space left on device"):
            sample(stage)
    summary = sample(stage)
    assert (summary.done, summary.skipped, summary.failed) == (8, 2, 0)
    assert set(journal_counts(stage.folder).values()) == {1}


def test_a_full_disk_is_known_by_what_the_writers_raise() -> None:
    said = (
        "Error while serializing: I/O error: No space left on device (os error 28)"  # of safetensors, on a full tmpfs
    )
    assert is_full_disk(SafetensorError(said))
    assert is_full_disk(av.error.OSError(errno.ENOSPC, "No space left on device"))
    assert is_full_disk(OSError(errno.EDQUOT, "Disk quota exceeded"))
    assert not is_full_disk(PermissionError(errno.EACCES, "denied"))
    assert not is_full_disk(SafetensorError("I/O error: Permission denied (os error 13)"))


@pytest.mark.usefixtures("ray_session")
def test_a_second_run_in_the_same_folder_is_refused_and_the_first_is_not_disturbed(tmp_path: Path) -> None:
    stage = config(write_prompts(tmp_path, [*"abcdefgh"]), tmp_path / "run", "SlowGenerator")
    summaries = []
    first = threading.Thread(target=lambda: summaries.append(sample(stage)))
    first.start()
    while not lock_path(stage.folder).exists():
        time.sleep(0.01)
    command = [sys.executable, "-m", "pipeline.sample", "--prompts", str(stage.prompts), "--model", stage.model]
    flags = ["--num_candidates", "2", "--output_dir", str(stage.output_dir)]
    second = subprocess.run([*command, *flags], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert first.is_alive()
    assert second.returncode == 2
    assert f"is in use by another run: process {os.getpid()} on " in second.stderr
    first.join()
    assert (summaries[0].done, summaries[0].failed) == (16, 0)
    assert set(journal_counts(stage.folder).values()) == {1}
