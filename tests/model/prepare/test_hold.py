"""The lock on the output folder of a preparation: one call at a time, or one call per shard."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from jobs.lock import lock_path
from model.prepare.command import main
from model.prepare.config import PrepareConfig
from model.prepare.hold import hold_output
from tests.locks import held_by_another_process


def flags(folder: Path, shard: str | None) -> list[str]:
    """The command for a table of one clip, whose only part shard 0 makes."""
    (folder / "t.csv").write_text("path,text\nnone.mp4,a ball\n")
    argv = ["--clips", str(folder / "t.csv"), "--output", str(folder / "data")]
    return argv if shard is None else [*argv, "--shard", shard]


@pytest.mark.parametrize(
    ("held", "asked"), [("data", None), ("data", "1/2"), ("data.shard-0-of-2", None), ("data.shard-0-of-2", "0/2")]
)
def test_a_second_call_for_the_same_parts_is_refused(held, asked, tmp_path, capfd):
    with held_by_another_process(tmp_path / held) as holder:
        assert main(flags(tmp_path, asked)) == 2
    assert f"{tmp_path / held} is in use by another run: process {holder.pid} on " in capfd.readouterr().err
    assert not (tmp_path / "data").exists()


def test_another_shard_works_beside_it_and_the_lock_of_a_killed_run_is_taken_over(tmp_path):
    with held_by_another_process(tmp_path / "data.shard-0-of-2") as holder:
        assert main(flags(tmp_path, "1/2")) == 0
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert lock_path(tmp_path / "data.shard-0-of-2").exists()
    for shard in (None, "0/2"):
        with hold_output(PrepareConfig(clips="t.csv", output=str(tmp_path / "data"), shard=shard)):
            pass
    assert not list(tmp_path.glob(".*"))


def test_the_lock_is_released_by_a_run_that_fails(tmp_path, capfd):
    assert main(flags(tmp_path, None)) == 2
    assert "None of the 1 clips can be used" in capfd.readouterr().err
    assert not lock_path(tmp_path / "data").exists()
