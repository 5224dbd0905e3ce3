"""Files of a web server of which nobody published the size and the hash: the server and the lock file say them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from model.fetch.catalogue import WebFile
from tests.model.fetch.fake_hub import WEIGHTS, serving, sha256
from tests.model.fetch.fetch_command import Command, component, files_below

PATH = "/spaces/owner/demo/resolve/main/net.pt"
ONE_BIT_LESS = bytes([WEIGHTS[0] ^ 1]) + WEIGHTS[1:]


@pytest.fixture
def fetch(tmp_path, capsys) -> Iterator[Command]:
    """Its component `i3d` is such a file."""
    with serving() as server:
        command = Command(server, tmp_path / "weights", capsys)
        command.sources["i3d"] = component(WebFile(name=f"{server.url}{PATH}"))
        yield command


def test_the_server_says_the_size_and_the_lock_file_keeps_the_hash(fetch):
    assert "1 of 1 files to fetch, 1.02MB" in fetch("i3d", flags=("--dry_run",))
    assert fetch.server.served == []
    fetch("i3d")
    assert files_below(fetch.output) == {"net.pt", "fetched.json"}
    assert (fetch.output / "net.pt").read_bytes() == WEIGHTS
    entry = fetch.lock()["net.pt"]
    assert (entry["size"], entry["sha256"]) == (len(WEIGHTS), sha256(WEIGHTS))
    assert entry["source"] == f"{fetch.server.url}{PATH}"


def test_it_is_resumed_where_it_broke_and_where_the_last_run_ended(fetch):
    fetch.server.drops = [300_000, 200_000, 0]
    assert "could not be reached" in fetch("i3d", status=1)
    fetch("i3d")
    assert fetch.server.ranges(PATH) == [None, "bytes=300000-", "bytes=500000-", "bytes=500000-"]
    assert (fetch.output / "net.pt").read_bytes() == WEIGHTS


def test_a_later_run_checks_it_against_the_lock_file_and_asks_nobody(fetch):
    fetch("i3d")
    fetch.server.served.clear()
    fetch.server.sized.clear()
    assert "net.pt: checked" in fetch("i3d")
    assert fetch.server.served == fetch.server.sized == []
    (fetch.output / "net.pt").write_bytes(ONE_BIT_LESS)
    assert f"is already there and has the sha256 {sha256(ONE_BIT_LESS)}" in fetch("i3d", status=2)


def test_what_is_fetched_again_must_be_what_was_fetched_first(fetch):
    fetch("i3d")
    (fetch.output / "net.pt").unlink()
    fetch.server.web[PATH] = ONE_BIT_LESS
    assert f"instead of {sha256(WEIGHTS)}" in fetch("i3d", status=2)
    assert files_below(fetch.output) == {"fetched.json"}
    fetch.server.web[PATH] = WEIGHTS
    fetch("i3d")
    assert (fetch.output / "net.pt").read_bytes() == WEIGHTS


def test_a_file_that_was_put_there_by_hand_must_have_the_size(fetch):
    fetch.output.mkdir()
    (fetch.output / "net.pt").write_bytes(WEIGHTS[1:])
    assert f"has {len(WEIGHTS) - 1} bytes instead of {len(WEIGHTS)}" in fetch("i3d", status=2)
    fetch.hub = str(fetch.output)  # nobody to ask: it is taken as it is
    fetch("i3d")
    assert fetch.lock()["net.pt"]["sha256"] == sha256(WEIGHTS[1:])


def test_the_size_is_that_of_the_file_and_not_of_a_redirection_to_it(fetch):
    with serving() as storage:
        fetch.server.redirect_to = storage.url
        fetch("i3d")
        assert storage.sized == [PATH]
    assert (fetch.output / "net.pt").read_bytes() == WEIGHTS


def test_a_server_that_is_busy_is_asked_again_and_one_that_refuses_is_named(fetch, monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr("model.fetch.transfer.time.sleep", pauses.append)
    fetch.server.statuses = [404]
    assert f"{PATH} answered 404" in fetch("i3d", status=2)
    fetch.server.statuses, fetch.server.retry_after = [503, 503], "20"
    fetch("i3d", flags=("--dry_run",))
    assert pauses == [20, 20]


def test_a_server_that_does_not_say_the_size_is_told_with_the_way_round(fetch, tmp_path):
    fetch.server.tells_size = False
    assert f"{PATH} does not say how large it is" in fetch("i3d", status=2)
    (tmp_path / "net.pt").write_bytes(WEIGHTS)
    fetch.hub = str(tmp_path)
    fetch("i3d")
    assert (fetch.output / "net.pt").read_bytes() == WEIGHTS


def test_a_server_that_is_not_there_is_named(fetch):
    with serving() as gone:
        pass
    fetch.sources["i3d"] = component(WebFile(name=f"{gone.url}{PATH}"))
    assert f"{gone.url}{PATH} could not be reached" in fetch("i3d", status=1)
