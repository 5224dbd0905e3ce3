"""Paths and URIs: what a command takes, what is read and written, and what is said when a store cannot be used."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import core.atomic
from core.atomic import atomic_folder, atomic_path, atomic_write_text
from core.cli import config_to_dict, parse_config, save_config
from core.storage import (
    StoragePath,
    create_exclusively,
    file_sizes,
    is_local,
    list_files,
    local_copy,
    relocation,
    resolve_in,
    storage_path,
)
from core.tables import read_table
from media import AVClip, MediaError, probe, read_clip, read_sound, write_clip
from tests.media.clips import click, moving_ball
from tests.object_store import contents

HOSTILE_NAME = "a <b>'\u00fc#?%20 c"


@dataclass(frozen=True)
class Config:
    output_dir: StoragePath = field(metadata={"help": "Anywhere."})
    tables: list[StoragePath] = field(default_factory=list, metadata={"help": "Anywhere."})
    statistics: StoragePath | None = field(default=None, metadata={"help": "Anywhere."})
    weights: Path = field(default=Path("weights"), metadata={"help": "On disk."})


def small_clip() -> AVClip:
    return AVClip(moving_ball(), 16.0, click(16000, 33 / 16), 16000)


def error_of(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as caught:
        parse_config(Config, argv)
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_local_places_stay_plain_paths(tmp_path: Path) -> None:
    for text in ("runs/first", str(tmp_path), f"file://{tmp_path}"):
        assert type(storage_path(text)) is type(Path())
    assert storage_path(f"file://{tmp_path}") == tmp_path
    with local_copy(tmp_path / "missing") as path:
        assert path == tmp_path / "missing"
    assert parse_config(Config, ["--output_dir", "runs/first"]).output_dir == Path("runs/first")


def test_a_command_takes_uris_where_it_can_and_refuses_them_where_it_cannot(
    bucket: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = f"{bucket}/runs/first"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"output_dir: {uri}/\ntables: [{uri}/a.csv, b.csv]\n")
    config = parse_config(Config, ["--config", str(recipe), "--statistics", f"{uri}/../second/ranking.json"])
    assert config_to_dict(config) == {
        "output_dir": uri,
        "tables": [f"{uri}/a.csv", "b.csv"],
        "statistics": f"{bucket}/runs/second/ranking.json",
        "weights": "weights",
    }
    save_config(config, config.output_dir / "config.yaml")
    saved = (config.output_dir / "config.yaml").read_text()
    (tmp_path / "saved.yaml").write_text(saved)
    assert parse_config(Config, ["--config", str(tmp_path / "saved.yaml")]) == config
    assert f"aws s3 sync {uri} DIR" in error_of(capsys, "--output_dir", "x", "--weights", uri)
    recipe.write_text(f"output_dir: x\nweights: {uri}\n")
    assert f"aws s3 sync {uri} DIR" in error_of(capsys, "--config", str(recipe))


def fail_half_way(path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        raise KeyError


def write_folder(folder: Path, *names: str) -> None:
    with atomic_folder(folder, last="state.json") as temporary:
        for name in names:
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            (temporary / name).write_text(name)
        if "fail" in names:
            raise KeyError


def test_files_come_back_and_appear_whole(bucket: Path) -> None:
    path = bucket / HOSTILE_NAME / "text.txt"
    atomic_write_text(path, "fir\u00e9\n")
    with pytest.raises(KeyError):
        fail_half_way(path)
    with atomic_path(bucket / "empty") as temporary:
        temporary.touch()
    assert contents(bucket) == {f"{HOSTILE_NAME}/text.txt": "fir\u00e9\n".encode(), "empty": b""}
    with local_copy(path) as copy:
        assert (copy.name, copy.read_text(encoding="utf-8")) == ("text.txt", "fir\u00e9\n")
    assert not copy.exists()
    with local_copy(bucket / "empty") as copy:
        assert copy.read_bytes() == b""
    with pytest.raises(FileNotFoundError), local_copy(bucket / "none"):
        pass


def test_a_large_file_of_many_parts_comes_back(bucket: Path) -> None:
    content = np.random.default_rng(0).bytes(110_000_000)  # s3fs sends 50 MB at a time
    with atomic_path(bucket / "large") as temporary:
        temporary.write_bytes(content)
    with local_copy(bucket / "large") as copy:
        assert copy.read_bytes() == content


def test_only_one_of_two_makers_of_an_object_succeeds(bucket: Path) -> None:
    create_exclusively(bucket / "lock", b"first")
    with pytest.raises(FileExistsError):
        create_exclusively(bucket / "lock", b"second")
    assert (bucket / "lock").read_bytes() == b"first"


@pytest.mark.parametrize("place", ["disk", "bucket"])
def test_a_folder_is_put_in_place_as_a_whole(place: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    root = tmp_path if place == "disk" else request.getfixturevalue("bucket")
    folder = root / "run" / "pairs"
    write_folder(folder, "state.json", "data.arrow", "plots/a.png")
    with pytest.raises(KeyError):
        write_folder(folder, "state.json", "fail")
    assert set(contents(folder)) == {"state.json", "data.arrow", "plots/a.png"}
    write_folder(folder, "state.json", "data-2.arrow")
    assert set(contents(folder)) == {"state.json", "data-2.arrow"}


def test_a_folder_that_could_not_be_put_in_place_whole_is_none_to_readers(
    bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bucket / "pairs"
    (folder / "state.json").write_text("old")
    upload = core.atomic.upload

    def fail_at_data(file: Path, path: Path) -> None:
        if path.name == "b.arrow":
            raise ConnectionError("gone")
        upload(file, path)

    monkeypatch.setattr(core.atomic, "upload", fail_at_data)
    with pytest.raises(ConnectionError):
        write_folder(folder, "state.json", "a.arrow", "b.arrow")
    assert "state.json" not in contents(folder)


def test_names_in_tables_are_found_from_their_folder(bucket: Path, tmp_path: Path) -> None:
    pairs = bucket / "run" / "pairs"
    assert str(resolve_in(pairs, "../candidates/a.mp4")) == f"{bucket}/run/candidates/a.mp4"
    for folder in (pairs, tmp_path):
        assert str(resolve_in(folder, f"{bucket}/x.mp4")) == f"{bucket}/x.mp4"
    assert resolve_in(pairs, "/data/x.mp4") == Path("/data/x.mp4")
    assert resolve_in(tmp_path, "../x.mp4") == tmp_path / "../x.mp4"


def test_names_in_tables_follow_when_a_table_moves(bucket: Path, tmp_path: Path) -> None:
    moves = [
        (tmp_path / "run/pairs", tmp_path / "other", "../run/candidates/a.mp4"),
        (bucket / "run/pairs", bucket / "other", "../run/candidates/a.mp4"),
        (bucket / "run/pairs", tmp_path / "other", f"{bucket}/run/candidates/a.mp4"),
        (tmp_path / "run/pairs", bucket / "other", str(tmp_path / "run/pairs/../candidates/a.mp4")),
    ]
    for old, new, name in moves:
        assert relocation(old, new)("../candidates/a.mp4") == name
        assert relocation(old, new)("/x.mp4") == "/x.mp4"
        assert relocation(old, old)("../candidates/a.mp4") == "../candidates/a.mp4"


def test_sizes_are_told_of_what_is_there(bucket: Path, tmp_path: Path) -> None:
    for root in (tmp_path / "run", bucket / "run"):
        for name in ("media/a/0.mp4", "b.mp4", "../outside.mp4", "../clips/c.mp4"):
            path = resolve_in(root, name)
            if is_local(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"12345")
        size_of = file_sizes(root)
        there = ["media/a/0.mp4", "b.mp4", "../outside.mp4", "../clips/c.mp4", str(resolve_in(root, "b.mp4"))]
        assert [size_of(name) for name in there] == [5] * 5
        missing = ["media/a/1.mp4", "media/a/0.mp4/x", "none", "../none.mp4", "../run-2/x", "/none/x"]
        assert [size_of(name) for name in missing] == [None] * 6
    assert list_files(bucket / "none") == {}


def test_clips_are_the_same_from_a_bucket_as_from_disk(bucket: Path, tmp_path: Path) -> None:
    clip = small_clip()
    for folder in (tmp_path, bucket):
        write_clip(clip, folder / "a.mp4")
    assert contents(bucket) == contents(tmp_path)
    here, there = ({"path": folder / "a.mp4", "audio_path": folder / "a.wav"} for folder in (tmp_path, bucket))
    for read in (read_clip, read_sound):
        mine, theirs = (read(str(given["path"]), audio_path=given["audio_path"]) for given in (here, there))
        np.testing.assert_array_equal(theirs.video, mine.video)
        np.testing.assert_array_equal(theirs.audio, mine.audio)
    assert probe(there["path"]).num_frames == clip.num_frames
    assert probe(there["path"]).path == f"{bucket}/a.mp4"


def test_a_clip_is_uploaded_after_its_sound(bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = core.atomic.upload

    def fail_at_the_clip(file: Path, path: Path) -> None:
        if path.suffix == ".mp4":
            raise ConnectionError("gone")
        upload(file, path)

    monkeypatch.setattr(core.atomic, "upload", fail_at_the_clip)
    with pytest.raises(ConnectionError):
        write_clip(small_clip(), bucket / "a.mp4")
    assert set(contents(bucket)) == {"a.wav"}


def test_a_damaged_clip_is_named_by_its_uri(bucket: Path) -> None:
    write_clip(small_clip(), bucket / "a.mp4")
    (bucket / "cut.mp4").write_bytes((bucket / "a.mp4").read_bytes()[:100])
    (bucket / "cut.wav").write_bytes((bucket / "a.wav").read_bytes()[:100])
    for name in ("cut.mp4", "none.mp4"):
        with pytest.raises(MediaError, match=f"{bucket}/{name}: "):
            read_clip(bucket / name)
    for name in ("cut.wav", "none.wav"):
        with pytest.raises(MediaError, match=f"{bucket}/{name}: "):
            read_clip(bucket / "a.mp4", audio_path=bucket / name)
    with pytest.raises(MediaError, match=f"{bucket}/a.mp4: has .* frames"):
        read_clip(bucket / "a.mp4", num_frames=10_000)


def test_tables_are_read_and_their_mistakes_named(bucket: Path) -> None:
    (bucket / "t.csv").write_text("id,text\n007,a dog\n")
    table = read_table(f"{bucket}/t.csv", {"id"}, "table", "give one")
    assert table.equals(pa.table({"id": ["007"], "text": ["a dog"]}))
    (bucket / "t.jsonl").write_text('{"id": 1}\n{oops\n')
    with pytest.raises(ValueError, match=f"{bucket}/t.jsonl, line 2: not JSON"):
        read_table(bucket / "t.jsonl", {"id"}, "table", "give one")
    with pytest.raises(ValueError, match=f"{bucket}/none.csv does not exist: give one"):
        read_table(bucket / "none.csv", {"id"}, "table", "give one")


def test_a_long_list_is_read_to_its_end(bucket: Path) -> None:
    run: Any = bucket / "run"
    run.fs.pipe({f"{run.path}/{number:04d}": b"x" * (number % 3) for number in range(1001)})  # a page holds 1000
    (bucket / "run-2").write_bytes(b"of another folder")
    assert list_files(bucket / "run") == {f"{number:04d}": number % 3 for number in range(1001)}
    assert len(list_files(bucket)) == 1002


def test_missing_credentials_are_told(s3_port: int) -> None:
    pytest.importorskip("s3fs")
    hidden = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden} | {"HOME": "/nonexistent"}
    code = "from core.storage import storage_path; storage_path('s3://private/x')"
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    message = result.stderr.strip().splitlines()[-1]
    assert message.startswith("ValueError: s3://private cannot be reached (NoCredentialsError")
    assert "AWS_ACCESS_KEY_ID" in message


@pytest.mark.usefixtures("bucket")
def test_a_store_that_cannot_be_used_is_told_at_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = error_of(capsys, "--output_dir", "s3://no-such-bucket/x")
    assert "s3://no-such-bucket does not exist. Create the bucket" in told
    assert "ftpx://host/x needs support for ftpx://" in error_of(capsys, "--output_dir", "ftpx://host/x")
    monkeypatch.setitem(sys.modules, "upath", None)
    assert "pip install 'avdpo[s3]'" in error_of(capsys, "--output_dir", "s3://other/x")
    assert "pip install 'avdpo[gs]'" in error_of(capsys, "--output_dir", "gs://other/x")
