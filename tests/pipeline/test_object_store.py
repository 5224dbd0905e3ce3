"""A run in a bucket of a real S3 server equals one on disk: making, killing, continuing, locking and inspecting it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from core.atomic import atomic_write_text
from core.storage import list_files, local_copy, read_object, resolve_in
from jobs import journal_segments
from jobs.estimate import describe_space
from jobs.journal import Journal
from jobs.lock import lock_folder, lock_path
from jobs.stops import StageStoppedError
from pipeline.convert import main as convert
from pipeline.inspect.command import main as inspect
from pipeline.rank.command import rank
from pipeline.rank.config import RankConfig
from pipeline.report.command import main as report
from pipeline.run import RunConfig, run
from pipeline.sample.command import plan, sample
from pipeline.sample.config import SampleConfig
from pipeline.score.command import score
from pipeline.score.config import ScoreConfig
from tests.locks import HOLD
from tests.object_store import contents
from tests.pipeline.fakes import HOSTILE
from tests.pipeline.test_stages import FAKES, write_real_clip

ROOT = Path(__file__).parents[2]
SETTINGS = {"seed": 0}


def write_inputs(folder: Path, local: Path) -> Path:
    """Prompts, one with a real clip beside the table."""
    write_real_clip(local / "clips" / "real.mp4")
    for name in ("real.mp4", "real.wav"):
        (folder / "clips").mkdir(parents=True, exist_ok=True)
        (folder / "clips" / name).write_bytes((local / "clips" / name).read_bytes())
    rows = [{"prompt_id": text, "prompt": text} for text in HOSTILE]
    rows[0] |= {"video_path": "clips/real.mp4", "audio_path": "clips/real.wav"}
    atomic_write_text(folder / "prompts.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return folder / "prompts.jsonl"


def run_config(prompts: Path, output_dir: Path, **changes: object) -> RunConfig:
    settings = {"model": f"{FAKES}:SlowGenerator", "num_candidates": 2, "rewards": [f"{FAKES}:FakeReward"]} | changes
    return RunConfig(prompts=prompts, output_dir=output_dir, **settings)


def sample_command(config: RunConfig) -> list[str]:
    flags = {"prompts": config.prompts, "output_dir": config.output_dir, "model": config.model, "num_candidates": 2}
    return [sys.executable, "-m", "pipeline.sample", *(f"--{name}={value}" for name, value in flags.items())]


@pytest.fixture
def started(bucket: Path, tmp_path: Path) -> Iterator[tuple[RunConfig, subprocess.Popen[str]]]:
    """Start sampling into a bucket in another process and wait until it has recorded rows."""
    config = run_config(write_inputs(bucket / "inputs", tmp_path), bucket / "first")
    process = subprocess.Popen(
        sample_command(config), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    segment = config.folder / "journal" / "00000000.jsonl"
    while not (segment.exists() and read_object(segment).count(b"\n") > 1):
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.2)
    yield config, process
    process.kill()
    process.wait()


def media_of(run_folder: Path) -> dict[str, bytes]:
    return contents(run_folder / "candidates" / "media")


def table(path: Path) -> pd.DataFrame:
    with local_copy(path) as file:
        return pd.read_parquet(file)


@pytest.mark.usefixtures("ray_session")
def test_a_run_in_a_bucket_refuses_a_second_is_killed_and_continued_and_equals_one_on_disk(
    started: tuple[RunConfig, subprocess.Popen[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, process = started
    with pytest.raises(ValueError, match=f"first/candidates is in use by another run: process {process.pid} on"):
        run(config)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert "left" in plan(config.of(SampleConfig))
    assert run(config) == 0
    told = capsys.readouterr().out
    assert "sample: wanted 21, done 21 (skipped 0)" not in told  # what was recorded before the kill is kept
    assert "sample: wanted 21, done 21" in told
    assert f"aws s3 sync {config.output_dir} DIR" in told  # in place of the report

    (tmp_path / "disk").mkdir()
    there, here = config.output_dir, tmp_path / "disk" / "first"
    prompts = write_inputs(tmp_path / "disk", tmp_path / "again")
    assert run(run_config(prompts, here, stages=["sample", "score", "rank"])) == 0
    assert media_of(there) == media_of(here)
    for name in ("scores/scores.parquet", "pairs/attrition.parquet"):
        assert (there / name).read_bytes() == (here / name).read_bytes(), name
    candidates = [table(folder / "candidates" / "candidates.parquet") for folder in (there, here)]
    pd.testing.assert_frame_equal(*(frame.drop(columns="generation_s") for frame in candidates))
    pairs = pd.concat([table_of_dataset(folder / "pairs") for folder in (there, here)], keys=["there", "here"])
    pd.testing.assert_frame_equal(pairs.loc["there"], pairs.loc["here"])
    assert all(resolve_in(there / "pairs", path).is_file() for path in pairs.loc["there", "chosen_video_path"])
    assert not [name for name in list_files(there) if name.endswith(".lock") or "tmp" in name]

    assert run(config) == 0
    assert "rank: wanted 10, done 10 (skipped 10)" in capsys.readouterr().out
    assert inspect([str(there), "--rows", "0"]) == 0
    told = capsys.readouterr().out
    for name in ("candidates/candidates.parquet: 21 rows", "scores/scores.parquet: 21 rows", "first/pairs: "):
        assert name in told
    assert convert(["--from", f"{there}/pairs", "--to", str(tmp_path / "local_pairs")]) == 0
    moved = table_of_dataset(tmp_path / "local_pairs")
    assert moved["chosen_video_path"].str.startswith(f"{there}/candidates/media/").all()


def table_of_dataset(folder: Path) -> pd.DataFrame:
    """Read a table without this package, as any user would."""
    import datasets

    return datasets.load_from_disk(str(folder)).to_pandas()


@pytest.mark.usefixtures("ray_session")
def test_failures_and_lost_objects_are_accounted_for_as_on_disk(bucket: Path, tmp_path: Path) -> None:
    rows = [{"prompt_id": name, "prompt": name} for name in ("keep", "lose", "RAISE")]
    rows[0] |= {"video_path": "none.mp4"}
    atomic_write_text(bucket / "prompts.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    config = run_config(bucket / "prompts.jsonl", bucket / "run", model=f"{FAKES}:FakeGenerator", max_failures=3)
    sampling = config.of(SampleConfig)
    summary = sample(sampling)
    assert (summary.wanted, summary.done, summary.failed) == (7, 4, 3)
    failures = table(sampling.folder / "failures.parquet").set_index("candidate_id")["error"]
    assert f"{bucket}/none.mp4: cannot be read" in failures["keep/gt"]
    lost, cut = (next(name for name in list_files(sampling.folder) if name.endswith(end)) for end in ("0.wav", "1.mp4"))
    bits = (sampling.folder / lost).read_bytes()
    (sampling.folder / lost).unlink()
    assert sample(sampling).skipped == 3
    assert (sampling.folder / lost).read_bytes() == bits

    (sampling.folder / cut).write_bytes(b"cut")
    summary = score(config.of(ScoreConfig))
    assert (summary.wanted, summary.done, summary.failed) == (4, 3, 1)
    assert f"{sampling.folder / cut}: is" in table(bucket / "run/scores/failures.parquet")["error"].item()
    rank(config.of(RankConfig))
    assert json.loads((bucket / "run/pairs/ranking.json").read_text())["num_prompts"] == 3


@pytest.mark.usefixtures("ray_session")
def test_a_store_that_fails_stops_the_stage_and_the_same_command_goes_on(
    bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    atomic_write_text(bucket / "prompts.csv", "prompt_id,prompt\na,a\nb,b\n")
    config = run_config(bucket / "prompts.csv", bucket / "run", model=f"{FAKES}:FakeGenerator").of(SampleConfig)
    sync = journal_segments.SegmentedFile.sync
    with monkeypatch.context() as patch:
        calls: list[int] = []

        def fail_at_the_second(file: journal_segments.SegmentedFile) -> None:
            calls.append(1)
            if len(calls) > 1:
                raise ConnectionError("gone")
            sync(file)

        patch.setattr(journal_segments.SegmentedFile, "sync", fail_at_the_second)
        with pytest.raises(StageStoppedError, match=r"cannot be read or written \(ConnectionError: gone\).* same comm"):
            sample(config)
    assert sample(config).done == 4


def write_journal(folder: Path, rows: list[dict]) -> None:
    with Journal(folder / "journal.jsonl", SETTINGS) as journal:
        first = journal.num_rows
        assert journal.append(rows) == range(first, first + len(rows))


def read_journal(folder: Path) -> list[dict]:
    return list(Journal(folder / "journal.jsonl", SETTINGS).rows())


def test_a_journal_in_a_bucket_grows_over_runs_and_objects(bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_segments, "SEGMENT_BYTES", 200)
    assert read_journal(bucket) == []
    assert contents(bucket) == {}
    rows = [{"id": f"{number} \u2028 \r\n"} for number in range(40)]
    write_journal(bucket, rows[:1])
    with Journal(bucket / "journal.jsonl", SETTINGS) as journal:
        for number in range(1, 40):
            journal.append(rows[number : number + 1])
        assert list(journal.rows()) == rows
    assert read_journal(bucket) == rows
    assert len(contents(bucket)) > 3
    with pytest.raises(ValueError, match="seed: 0 before, 1 now"):
        Journal(bucket / "journal.jsonl", {"seed": 1})
    (bucket / "journal" / "00000001.jsonl").unlink()
    with pytest.raises(ValueError, match=r"journal/00000001\.jsonl is missing"):
        read_journal(bucket)


def test_a_copied_journal_is_refused_until_it_has_the_form_of_its_place(bucket: Path, tmp_path: Path) -> None:
    rows = [{"id": 1}, {"id": 2}]
    write_journal(bucket, rows[:1])
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "00000000.jsonl").write_bytes(read_object(bucket / "journal" / "00000000.jsonl"))
    with pytest.raises(ValueError, match="For a run on disk make it one file: `cat ") as caught:
        read_journal(tmp_path)
    subprocess.run(str(caught.value).split("`")[1], shell=True, check=True)
    write_journal(tmp_path, rows[1:])
    assert read_journal(tmp_path) == rows

    copied = (tmp_path / "journal.jsonl").read_bytes()
    (bucket / "other" / "journal.jsonl").write_bytes(copied)
    with pytest.raises(ValueError, match=r"move it to .*/other/journal/00000000\.jsonl"):
        read_journal(bucket / "other")
    (bucket / "other" / "journal" / "00000000.jsonl").write_bytes(copied + b'{"id": "torn')
    write_journal(bucket / "other", [{"id": 3}])
    assert read_journal(bucket / "other") == [*rows, {"id": 3}]


def test_rows_do_not_wait_for_the_next_one_to_be_written(bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_segments, "FLUSH_S", 0.3)
    rows = [{"id": number} for number in range(3)]
    with Journal(bucket / "journal.jsonl", SETTINGS) as journal:
        for number in range(3):
            journal.append(rows[number : number + 1])
        deadline = time.monotonic() + 20
        while read_journal(bucket) != rows:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_rows_are_written_in_groups_and_all_of_them_at_the_end_or_on_an_error(
    bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"id": number} for number in range(9)]
    journal = Journal(bucket / "journal.jsonl", SETTINGS)
    with pytest.raises(KeyError), journal:
        fail_after(journal, rows)
    assert read_journal(bucket) == rows

    with Journal(bucket / "journal.jsonl", SETTINGS) as journal:
        journal.append([{"id": "first of a run"}])
        journal.append([{"id": "soon after"}])
        assert read_journal(bucket) == [*rows, {"id": "first of a run"}]
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + journal_segments.FLUSH_S)
        journal.append([{"id": "late"}])
        assert len(read_journal(bucket)) == len(rows) + 3


def fail_after(journal: Journal, rows: list[dict]) -> None:
    for row in rows:
        journal.append([row])
    raise KeyError


def take(folder: Path) -> None:
    with lock_folder(folder):
        owner = json.loads(lock_path(folder).read_text())
        assert owner["pid"] == os.getpid()
        with pytest.raises(ValueError, match="in use"), lock_folder(folder):
            pass


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_lock_in_a_bucket_is_held_only_by_a_running_process(bucket: Path, number: signal.Signals) -> None:
    folder = bucket / "run" / "candidates"
    hold = "from core.storage import storage_path\n" + HOLD.replace("Path(", "storage_path(")
    with subprocess.Popen([sys.executable, "-c", hold, str(folder)], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(ValueError, match=f"in use by another run: process {process.pid} on"):
            take(folder)
        take(folder.with_name("scores"))
        process.send_signal(number)
    assert lock_path(folder).exists() == (number == signal.SIGKILL)
    take(folder)
    assert list_files(bucket) == {}


def test_a_lock_of_another_host_is_kept_until_its_object_is_deleted(bucket: Path) -> None:
    owner = {"host": "elsewhere", "pid": 1, "started": "yesterday", "command": "python -m pipeline.sample"}
    lock_path(bucket / "candidates").write_text(json.dumps(owner))
    with pytest.raises(ValueError, match=rf"process 1 on elsewhere.*delete {bucket}/\.candidates\.lock"):
        take(bucket / "candidates")
    assert json.loads(lock_path(bucket / "candidates").read_text()) == owner
    lock_path(bucket / "candidates").unlink()
    take(bucket / "candidates")


def test_a_command_for_runs_on_disk_prints_how_to_copy(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        report(["--output_dir", "s3://bucket/runs/first"])
    assert caught.value.code == 2
    assert "aws s3 sync s3://bucket/runs/first DIR" in capsys.readouterr().err


def test_space_needed_in_a_bucket_is_estimated_without_free_space(bucket: Path) -> None:
    assert describe_space(1e6, 3, bucket) == f"about 3 MB in {bucket} (1 MB per candidate)"
