"""The lock on the output folder of a training: one run at a time, however many processes it has."""

from __future__ import annotations

import signal

import pytest

from jobs.lock import lock_path
from model.train.command import main
from tests.locks import held_by_another_process
from tests.model.train.latent_rows import save_dataset
from tests.model.train.test_train import flags, save_model
from tests.processes import in_processes
from tests.small_latents import small_network


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    root = tmp_path_factory.mktemp("start")
    save_model(root / "model", small_network())
    return root / "model", save_dataset(root / "clips")


def test_a_second_run_is_refused_and_a_killed_one_is_taken_over(start, tmp_path, capfd):
    folder = tmp_path / "out"
    argv = flags(start, folder, max_steps=1)
    with held_by_another_process(folder) as holder:
        for extra in ([], ["--num_workers", "2"]):
            assert main([*argv, *extra]) == 2
            assert f"{folder} is in use by another run: process {holder.pid} on " in capfd.readouterr().err
        assert not folder.exists()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert lock_path(folder).exists()
        assert main(argv) == 0
    assert not lock_path(folder).exists()
    with held_by_another_process(folder):
        assert main(argv) == 0  # a finished run needs no lock


def test_every_process_of_a_refused_run_ends(start, tmp_path):
    with held_by_another_process(tmp_path / "out") as holder:
        status, notes = in_processes("model.train", flags(start, tmp_path / "out", max_steps=1))
    assert status == [2, 2], notes
    assert all(f"in use by another run: process {holder.pid} on " in note for note in notes)
