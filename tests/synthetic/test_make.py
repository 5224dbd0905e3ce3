from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from media import probe, read_clip
from synthetic import caption, scene_from_seed
from synthetic.make import main

COLUMNS = [
    "prompt_id", "prompt", "video_path", "audio_path", "seed", "color", "size", "background", "num_impacts", "pitch",
    "material", "side",
]  # fmt: skip


def make(output: Path, *flags: str):
    main(["--output", str(output), "--num_clips", "20", "--first_seed", "1000300", *flags])


def contents(folder: Path):
    kept = [path for path in folder.rglob("*") if path.is_file() and path.name != "summary.json"]  # which has times
    return {str(path.relative_to(folder)): path.read_bytes() for path in kept}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    make(folder)
    return folder


def test_table_and_files_are_complete(made):
    table = pq.read_table(made / "prompts.parquet").to_pylist()
    assert list(table[0]) == COLUMNS
    assert len({row["prompt_id"] for row in table}) == 20
    for row in table:
        scene = scene_from_seed(row["seed"])
        assert row["prompt"] == caption(scene)
        assert (row["color"], row["num_impacts"], row["side"]) == (scene.color, scene.num_impacts, scene.side)
        info = probe(made / row["video_path"])
        assert (info.num_frames, info.width, info.sample_rate) == (33, 64, 16000)
    clip = read_clip(made / table[0]["video_path"], audio_path=made / table[0]["audio_path"])
    assert clip.audio.shape == (1, 33000)
    assert len(contents(made)) == 41


def test_two_processes_give_the_same_bytes(made, tmp_path):
    command = [sys.executable, "-m", "synthetic.make", "--output", str(tmp_path), "--num_clips", "20"]
    command += ["--first_seed", "1000300", "--num_workers", "2"]
    result = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert "make: wanted 20, done 20 (skipped 0), failed 0" in result.stdout
    assert contents(tmp_path) == contents(made)


def test_a_second_run_writes_only_what_is_missing(made, tmp_path, capsys):
    make(tmp_path)
    gone = sorted(tmp_path.glob("clips/*.mp4"))[3]
    gone.unlink()
    (tmp_path / "prompts.parquet").unlink()
    kept = gone.with_name("bounce-1000300.mp4")
    before = kept.stat().st_mtime_ns
    capsys.readouterr()
    make(tmp_path)
    assert "done 20 (skipped 19)" in capsys.readouterr().out
    assert kept.stat().st_mtime_ns == before
    assert contents(tmp_path) == contents(made)
    assert json.loads((tmp_path / "summary.json").read_text())["skipped"] == 19


def test_dry_run_writes_nothing(tmp_path, capsys):
    make(tmp_path / "new", "--dry_run")
    assert not (tmp_path / "new").exists()
    assert "20 clips would be written" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags", [["--num_clips", "0"], ["--num_workers", "0"], ["--first_seed", "-1"], ["--num_clip", "3"]]
)
def test_mistakes_end_with_one_line(tmp_path, capsys, flags):
    with pytest.raises(SystemExit) as stopped:
        make(tmp_path / "new", *flags)
    assert stopped.value.code == 2
    assert flags[0].strip("-") in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
