"""Components of several sources, and texts that are published only in Python source, which is never run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from model.fetch.catalogue import PythonText, WebFile
from tests.model.fetch.fake_hub import WEIGHTS, serving, sha256
from tests.model.fetch.fetch_command import Command, component, files_below

TEXT = "Rate the <clip> of {text_prompt}.\n\tÄ, “one”\n" * 20
PYTHON = f"""
raise SystemExit("this file must not run")
OTHER = "Rate nothing."
PROMPT = {TEXT!r}
LONGER = {TEXT * 3!r}
""".encode()


@pytest.fixture
def fetch(tmp_path, capsys) -> Iterator[Command]:
    """Its component `videoalign` is a file of weights and a text."""
    with serving() as server:
        server.web["/code/prompts.py"] = PYTHON
        weights = WebFile(name=f"{server.url}/files/align.pth", size=len(WEIGHTS), sha256=sha256(WEIGHTS))
        text = PythonText(
            name=f"{server.url}/code/prompts.py",
            constant="PROMPT",
            python_size=len(PYTHON),
            destination="align/prompt.txt",
            size=len(TEXT.encode()),
            sha256=sha256(TEXT.encode()),
        )
        command = Command(server, tmp_path / "weights", capsys)
        command.sources["videoalign"] = component(weights, text)
        yield command


def served(fetch: Command) -> list[str]:
    return [path for path, *_ in fetch.server.served]


def test_all_sources_of_a_component_are_fetched_and_only_the_text_of_the_python_file_is_kept(fetch):
    shown = fetch("videoalign")
    assert files_below(fetch.output) == {"align.pth", "align/prompt.txt", "fetched.json"}
    assert (fetch.output / "align/prompt.txt").read_bytes() == TEXT.encode()
    assert f"source: {fetch.server.url}/files/align.pth\n  file: {fetch.output}/align.pth\n" in shown
    assert f"source: the text PROMPT in {fetch.server.url}/code/prompts.py\n" in shown
    assert f"file: {fetch.output}/align/prompt.txt\n" in shown
    assert fetch.lock()["align/prompt.txt"] == {
        "component": "videoalign",
        "source": f"{fetch.server.url}/code/prompts.py",
        "revision": None,
        "size": len(TEXT.encode()),
        "sha256": sha256(TEXT.encode()),
    }
    assert fetch.lock()["align.pth"]["source"] == f"{fetch.server.url}/files/align.pth"
    fetch.server.served.clear()
    assert "0 of 2 files to fetch" in fetch("videoalign")
    assert served(fetch) == []


def test_a_source_that_is_new_to_a_component_is_all_that_a_later_run_fetches(fetch):
    both = fetch.sources["videoalign"]
    fetch.sources["videoalign"] = replace(both, sources=both.sources[:1])
    fetch("videoalign")
    fetch.sources["videoalign"] = both
    fetch.server.served.clear()
    assert "1 of 2 files to fetch" in fetch("videoalign")
    assert served(fetch) == ["/code/prompts.py"]
    assert set(fetch.lock()) == {"align.pth", "align/prompt.txt"}


def test_python_source_is_resumed_even_where_more_than_the_text_has_come(fetch):
    received = len(PYTHON) - 10
    assert received > len(TEXT.encode())
    fetch.server.drops = [len(WEIGHTS), received]
    fetch("videoalign")
    assert fetch.server.ranges("/code/prompts.py") == [None, f"bytes={received}-"]
    assert (fetch.output / "align/prompt.txt").read_bytes() == TEXT.encode()


def test_dry_run_tells_the_size_of_the_text(fetch):
    shown = fetch("videoalign", flags=("--dry_run",))
    assert f"{fetch.output}/align/prompt.txt: {len(TEXT.encode())}B" in shown
    assert not fetch.output.exists()
    assert fetch.server.served == []


@pytest.mark.parametrize(
    ("python", "complaint"),
    [
        (b"PROMPT = 'another text'", "has 12 bytes instead of"),
        (f"PROMPT = {TEXT.swapcase()!r}".encode(), "has the sha256"),
        (b"OTHER = 'a text'", "is no text"),
        (b"PROMPT = open('x').read()", "is no text"),
        (b"<!DOCTYPE html>", "cannot be read (invalid syntax"),
        (b"PROMPT = '\xff'", "cannot be read ("),
        (b"PROMPT = '\\ud800'", "cannot be read ("),
    ],
)
def test_another_text_is_refused_and_removed(fetch, python, complaint):
    fetch.server.web["/code/prompts.py"] = python
    error = fetch("videoalign", status=2)
    assert f"PROMPT in {fetch.server.url}/code/prompts.py {complaint}" in error
    assert files_below(fetch.output) == {"align.pth"}


@pytest.mark.parametrize(("name", "content"), [("prompts.py", PYTHON), ("align/prompt.txt", TEXT.encode())])
@pytest.mark.parametrize("mirror", ["mirror", "weights"])  # a mirror of its own, or files copied to the output by hand
def test_a_mirror_holds_the_python_source_or_the_text(fetch, tmp_path, mirror, name, content):
    path: Path = tmp_path / mirror / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    (tmp_path / mirror / "align.pth").write_bytes(WEIGHTS)
    fetch.hub = str(tmp_path / mirror)
    fetch("videoalign")
    assert (fetch.output / "align/prompt.txt").read_bytes() == TEXT.encode()
    assert path.read_bytes() == content
    assert set(fetch.lock()) == {"align.pth", "align/prompt.txt"}
    assert fetch.server.served == []


def test_a_mirror_with_neither_says_what_to_copy(fetch, tmp_path):
    (tmp_path / "align.pth").write_bytes(WEIGHTS)
    fetch.hub = str(tmp_path)
    error = fetch("videoalign", status=2)
    assert (
        f"{tmp_path} has no align/prompt.txt and no prompts.py. Copy {fetch.server.url}/code/prompts.py there." in error
    )
