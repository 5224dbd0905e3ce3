"""`model.fetch` against a hub and a web server on a local port, and against local mirrors."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import pytest

from model.fetch.catalogue import GENERATION, PIPELINE, SOURCES, HubRepo, WebFile
from model.fetch.command import main
from tests.model.fetch.fake_hub import HUB, NEW, OLD, WEIGHTS, Handler, Server, serving, sha256
from tests.model.fetch.fetch_command import Command, component, files_below


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def fetch(server, tmp_path, capsys) -> Command:
    return Command(server, tmp_path / "weights", capsys)


def test_fetches_what_generation_needs_and_nothing_else(fetch):
    fetch()
    assert files_below(fetch.output) == {
        "net/model/shard.bin",
        "net/model/index.json",
        "wan/vae.pth",
        "wan/t5.pth",
        "wan/tokenizer/a.json",
        "mel/config.json",
        "fetched.json",
        "pipeline.json",
    }
    assert (fetch.output / "net/model/shard.bin").read_bytes() == WEIGHTS


@pytest.mark.parametrize(("name", "path"), [("transformer", "net/model/shard.bin"), ("imagebind", "bind.pth")])
def test_broken_connection_is_resumed_where_it_broke(fetch, name, path):
    fetch.server.hub["owner/net"] = {"model/shard.bin": WEIGHTS}
    fetch.server.drops = [300_000, 200_000]
    fetch(name)
    ranges = fetch.server.ranges("model/shard.bin") or fetch.server.ranges("/files/bind.pth")
    assert ranges == [None, "bytes=300000-", "bytes=500000-"]
    assert (fetch.output / path).read_bytes() == WEIGHTS


def test_next_run_goes_on_where_the_last_one_ended(fetch):
    fetch.server.drops = [0]
    assert "could not be reached" in fetch("imagebind", status=1)
    fetch.server.drops = [300_000, 0]  # the second connection brings nothing: the run gives up
    assert "could not be reached" in fetch("imagebind", status=1)
    assert not (fetch.output / "bind.pth").exists()
    fetch.server.served.clear()
    fetch("imagebind")
    assert fetch.server.ranges("/files/bind.pth") == ["bytes=300000-"]
    assert files_below(fetch.output) == {"bind.pth", "fetched.json"}
    assert (fetch.output / "bind.pth").read_bytes() == WEIGHTS


@pytest.mark.parametrize("name", ["transformer", "imagebind"])
@pytest.mark.parametrize("status", [429, 503, 520])
def test_a_server_that_is_busy_for_a_while_is_asked_again(fetch, monkeypatch, name, status):
    pauses: list[float] = []
    monkeypatch.setattr("model.fetch.transfer.time.sleep", pauses.append)
    fetch.server.statuses = [status, status]
    fetch(name)
    assert len(pauses) == 2
    assert pauses[0] < pauses[1]


@pytest.mark.parametrize("name", ["transformer", "imagebind"])
@pytest.mark.parametrize(("retry_after", "pause"), [("20", 20), ("86400", 1), ("Wed, 21 Oct 2015 07:28:00 GMT", 1)])
def test_a_short_pause_that_the_server_asks_for_is_kept(fetch, monkeypatch, name, retry_after, pause):
    pauses: list[float] = []
    monkeypatch.setattr("model.fetch.transfer.time.sleep", pauses.append)
    fetch.server.statuses, fetch.server.retry_after = [503], retry_after
    fetch(name)
    assert pauses == [pause]


@pytest.mark.parametrize("name", ["transformer", "imagebind"])
def test_a_server_that_stays_busy_ends_the_run_as_one_that_fails(fetch, monkeypatch, name):
    monkeypatch.setattr("model.fetch.transfer.time.sleep", lambda _: None)
    fetch.server.statuses = [503] * 100
    assert re.search(r"answered 503.* 7 times in a row; run again later", fetch(name, status=1))
    fetch.server.statuses = [404]
    assert "answered 404" in fetch(name, status=2)


def test_server_without_range_support_sends_the_whole_file(fetch):
    fetch.server.supports_range = False
    fetch.output.mkdir()
    (fetch.output / "bind.pth.part").write_bytes(WEIGHTS[:1000])
    fetch("imagebind")
    assert (fetch.output / "bind.pth").read_bytes() == WEIGHTS


def test_wrong_content_is_refused_and_removed(fetch):
    pinned = sha256(b"what was published")
    fetch.sources["imagebind"] = component(replace(fetch.sources["imagebind"].sources[0], sha256=pinned))
    error = fetch("imagebind", status=2)
    assert pinned in error
    assert sha256(WEIGHTS) in error
    assert files_below(fetch.output) == set()


def test_small_hub_files_are_checked_by_their_git_hash(fetch, monkeypatch):
    sent = Handler.send_file
    monkeypatch.setattr(Handler, "send_file", lambda self, path, content: sent(self, path, content.swapcase()))
    fetch.server.hub["owner/mel"] = {"config.json": b'{"a": 1}'}
    assert "config.json has the git sha1" in fetch("audio_codec", status=2)
    assert files_below(fetch.output) == set()


def test_finished_files_are_not_fetched_again(fetch):
    fetch()
    fetch.server.served.clear()
    fetch.server.listed.clear()
    fetch.server.newest = NEW
    assert "0 of 6 files to fetch" in fetch()
    assert fetch.server.served == []
    assert fetch.server.listed == []


def test_changed_file_is_named_and_left_alone(fetch):
    fetch("video_codec")
    path = fetch.output / "wan/vae.pth"
    path.write_bytes(b"VAE")
    error = fetch("video_codec", status=2)
    assert str(path) in error
    assert sha256(b"VAE") in error
    assert sha256(b"vae") in error
    assert path.read_bytes() == b"VAE"


def test_file_put_there_by_hand_must_be_the_pinned_one(fetch):
    (fetch.output / "wan").mkdir(parents=True)
    (fetch.output / "wan/vae.pth").write_bytes(b"???")
    assert "wan/vae.pth is already there and has the sha256" in fetch("video_codec", status=2)
    (fetch.output / "wan/vae.pth").write_bytes(b"vae")
    assert "wan/vae.pth: checked" in fetch("video_codec")
    assert fetch.server.served == []


def test_lock_file_says_where_every_file_is_from(fetch):
    fetch("transformer", "video_codec", "imagebind")
    lock = fetch.lock()
    assert set(lock) == {"net/model/shard.bin", "net/model/index.json", "wan/vae.pth", "bind.pth"}
    assert lock["net/model/shard.bin"] == {
        "component": "transformer",
        "source": "owner/net",
        "revision": OLD,  # the newest then; the table pins none
        "size": len(WEIGHTS),
        "sha256": sha256(WEIGHTS),
    }
    assert lock["wan/vae.pth"]["revision"] == NEW
    assert lock["bind.pth"]["source"] == f"{fetch.server.url}/files/bind.pth"


def test_removed_file_is_fetched_again_at_the_revision_of_the_lock(fetch):
    fetch("transformer")
    fetch("imagebind")
    (fetch.output / "net/model/index.json").unlink()
    fetch.server.newest = NEW
    fetch("transformer")
    assert fetch.server.listed == [("owner/net", OLD), ("owner/net", OLD)]
    assert set(fetch.lock()) == {"net/model/shard.bin", "net/model/index.json", "bind.pth"}


def plain(mirror: Path, repo: str, revision: str) -> Path:
    return mirror / repo


def cache(mirror: Path, repo: str, revision: str) -> Path:
    folder = mirror / f"models--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs/main").write_text(revision)
    return folder / "snapshots" / revision


def earlier_output(mirror: Path, repo: str, revision: str) -> Path:
    return mirror / repo.split("/")[1]


@pytest.mark.parametrize(("layout", "revision"), [(plain, None), (cache, OLD), (earlier_output, None)])
def test_local_mirrors(fetch, tmp_path, layout, revision):
    fetch.hub = str(tmp_path / "mirror")
    for repo, files in HUB.items():
        for name, content in files.items():
            path = layout(tmp_path / "mirror", repo, NEW if repo == "owner/wan" else OLD) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    (tmp_path / "mirror/bind.pth").write_bytes(WEIGHTS)
    fetch(*fetch.sources)
    assert (fetch.output / "net/model/shard.bin").read_bytes() == WEIGHTS
    assert (fetch.output / "wan/tokenizer/a.json").read_bytes() == b"[1]"
    assert (fetch.output / "bind.pth").read_bytes() == WEIGHTS
    assert fetch.lock()["net/model/shard.bin"]["revision"] == revision
    assert fetch.server.served == []


def test_local_mirror_with_another_content_or_revision_is_refused(fetch, tmp_path):
    fetch.hub = str(tmp_path / "mirror")
    snapshot = cache(tmp_path / "mirror", "owner/wan", OLD)
    snapshot.mkdir(parents=True)
    (snapshot / "vae.pth").write_bytes(b"vae")
    assert f"snapshots/{NEW}" in fetch("video_codec", status=2)
    snapshot.rename(snapshot.parent / NEW)
    (snapshot.parent / NEW / "vae.pth").write_bytes(b"???")
    assert sha256(b"vae") in fetch("video_codec", status=2)
    assert files_below(fetch.output) == set()


def test_file_without_a_known_hash_must_have_the_size(fetch, tmp_path):
    for folder, content in ((tmp_path / "owner/mel", b"{ }"), (fetch.output / "mel", b"{")):
        folder.mkdir(parents=True)
        (folder / "config.json").write_bytes(content)
    fetch.hub = str(tmp_path)
    assert "config.json is already there and has 1 bytes instead of 3" in fetch("audio_codec", status=2)


def test_full_disk_is_told_before_anything_is_fetched(fetch, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    assert "has room for 1.00kB, but 1.02MB are needed" in fetch("imagebind", status=2)
    assert fetch.server.served == []


def test_files_copied_by_hand_become_a_model(fetch):
    for repo, files in HUB.items():
        for name, content in files.items():
            path = earlier_output(fetch.output, repo, OLD) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    (fetch.output / "net/model/other.bin.part").write_bytes(b"of an interrupted run")
    fetch.hub = str(fetch.output)
    fetch()
    assert (fetch.output / "pipeline.json").exists()
    assert len(fetch.lock()) == 6


def test_dry_run_tells_sizes_and_writes_nothing(fetch):
    shown = fetch(flags=("--dry_run",))
    assert f"{fetch.output}/net/model/shard.bin: 1.02MB" in shown
    assert "6 of 6 files to fetch, 1.02MB" in shown
    assert "free on the disk" in shown
    assert "licence: A-1.0" in shown
    assert not fetch.output.exists()
    assert fetch.server.served == []


def test_non_commercial_licence_has_to_be_accepted(fetch):
    error = fetch("imagebind", flags=(), status=2)
    assert "imagebind (A-1.0)" in error
    assert "--accept_licences" in error
    assert fetch.server.served == []
    fetch("video_codec", flags=())
    fetch("imagebind", flags=("--accept_licences",))


def test_without_a_network_one_sentence_says_what_to_do(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
    command = [sys.executable, "-m", "model.fetch", "--output", str(tmp_path / "weights"), "--accept_licences"]
    run = subprocess.run(command, env=os.environ | {"HF_ENDPOINT": endpoint}, capture_output=True, text=True)
    assert run.returncode == 1
    assert f"file: {tmp_path}/weights/Wan2.1-T2V-1.3B/Wan2.1_VAE.pth\n" in run.stdout
    [error] = run.stderr.splitlines()
    assert error.startswith(f"error: {endpoint} could not be reached")
    assert "no network" in error
    assert "--hub a local mirror" in error
    assert f"by hand to the paths printed above and run again with --hub {tmp_path}/weights" in error


def test_access_token_goes_to_the_hub_alone(fetch, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with serving() as storage:
        fetch.server.redirect_to = storage.url
        fetch("video_codec", "imagebind")
    assert [token for *_, token in fetch.server.served] == ["Bearer hf_secret", None]
    assert [token for *_, token in storage.served] == [None, None]


def test_refusals_of_a_server_are_told(fetch):
    del fetch.server.hub["owner/net"]["model/index.json"], fetch.server.hub["owner/net"]["model/shard.bin"]
    assert "has no 'model/*' of owner/net" in fetch("transformer", status=2)
    fetch.server.hub["owner/net"] = {"model/../../outside": b"!"}
    assert "outside the output folder" in fetch("transformer", status=2)
    del fetch.server.hub["owner/net"]
    assert f"{fetch.hub} answered 404 for owner/net at its newest revision" in fetch("transformer", status=2)


def test_pipeline_file_names_every_part_and_keeps_the_users_changes(fetch):
    from model.javisdit.pipeline import GenerationDefaults

    fetch("transformer", "video_codec")
    path = fetch.output / "pipeline.json"
    assert not path.exists()
    fetch("text_encoder", "audio_codec")
    content = json.loads(path.read_text())
    assert content == PIPELINE
    negative_prompt = content["defaults"].pop("negative_prompt")
    assert GenerationDefaults(**content["defaults"]) == GenerationDefaults()
    assert negative_prompt
    path.write_text("{}")
    fetch()
    assert path.read_text() == "{}"


def test_table_of_sources_is_consistent():
    for name, source in ((name, source) for name, one in SOURCES.items() for source in one.sources):
        assert source.revision is None or re.fullmatch(r"[0-9a-f]{40}", source.revision), name
        hashes = source.sha256 if isinstance(source, HubRepo) else {source.name: source.sha256}
        for path, value in hashes.items():
            if value is None:  # of a file of the web that nobody published one of
                continue
            assert re.fullmatch(r"[0-9a-f]{64}", value), path
            assert isinstance(source, WebFile) or any(fnmatch(path, pattern) for pattern in source.include), path
    for name in GENERATION:
        part = PIPELINE["components"][name]
        [source] = SOURCES[name].sources
        assert all(path.startswith(part) for path in source.destinations), name


def test_unknown_component_and_hub_are_mistakes(tmp_path, capsys):
    for flags in (["--components", "vae"], ["--hub", str(tmp_path / "nowhere")]):
        with pytest.raises(SystemExit, match="2"):
            main(["--output", str(tmp_path / "weights"), *flags])
        assert flags[1] in capsys.readouterr().err
