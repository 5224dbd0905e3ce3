"""The lock of a stage's folder: one run at a time, whatever became of the one before."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.lock import check_unlocked, lock_folder, lock_path
from tests.locks import held_by_another_process


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run" / "candidates"


@pytest.fixture
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    with held_by_another_process(folder) as process:
        yield process


def take(folder: Path) -> None:
    with lock_folder(folder):
        assert json.loads(lock_path(folder).read_text())["pid"]


def test_a_second_run_is_refused_and_the_holder_is_named(folder: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(ValueError, match="in use by another run") as caught:
        take(folder)
    owner = json.loads(lock_path(folder).read_text())
    assert owner["pid"] == holder.pid
    assert str(folder) in owner["command"]
    assert all(str(value) in str(caught.value) for value in (folder, *owner.values()))
    take(folder.with_name("scores"))  # another stage is free


def fail(folder: Path) -> None:
    with lock_folder(folder):
        raise KeyError


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_lock_of_a_stopped_run_is_taken_over(
    folder: Path, holder: subprocess.Popen[str], number: signal.Signals
) -> None:
    holder.send_signal(number)
    holder.wait()
    assert lock_path(folder).exists() == (number == signal.SIGKILL)  # after Ctrl-C it is gone
    take(folder)
    assert [*folder.parent.iterdir()] == []


def test_an_error_releases_and_a_lock_holds_against_its_own_process(folder: Path) -> None:
    with lock_folder(folder), pytest.raises(ValueError, match="in use"):
        take(folder)
    with pytest.raises(KeyError):
        fail(folder)
    take(folder)


def test_a_lock_of_another_host_stands_until_it_is_deleted(folder: Path) -> None:
    folder.parent.mkdir()
    owner = {"host": "elsewhere", "pid": 1, "started": "yesterday", "command": "python -m pipeline.sample"}
    lock_path(folder).write_text(json.dumps(owner))
    with pytest.raises(ValueError, match=r"process 1 on elsewhere.*delete .*\.candidates\.lock"):
        take(folder)
    lock_path(folder).unlink()
    take(folder)


def test_the_lock_of_a_run_that_died_at_its_start_is_taken_over(folder: Path) -> None:
    folder.parent.mkdir()
    lock_path(folder).write_text('{"host": "els')
    take(folder)


def test_a_check_refuses_as_the_lock_does_and_takes_nothing(folder: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(ValueError, match=f"in use by another run: process {holder.pid} on "):
        check_unlocked(folder)
    check_unlocked(folder.with_name("scores"))
    holder.kill()
    holder.wait()
    check_unlocked(folder)
    assert [path.name for path in folder.parent.iterdir()] == [".candidates.lock"]


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_whose_place_is_read_only_is_refused_with_a_way_out(folder: Path) -> None:
    folder.parent.mkdir(mode=0o500)
    with pytest.raises(ValueError, match=r"cannot be written \(Permission denied\).*inside one that you may write to"):
        take(folder)
