"""`ray job submit` from a clean checkout, as documented, to the job server of a real Ray head on this machine."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import yaml

from pipeline.sample.command import sample
from tests.pipeline.test_faults import FAKES, config, write_prompts

ROOT = Path(__file__).parents[2]
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
TOKEN = secrets.token_hex(32)  # Ray's job server runs whatever it is sent, so it asks for one
NOT_TO_TRAVEL = ("runs/first/candidates/media/0.mp4", "weights/model.safetensors", ".venv/bin/python", ".git/config")


@dataclass(frozen=True)
class Head:
    """A Ray head with its dashboard, and the checkout from which jobs are submitted to it."""

    address: str
    folder: Path  # Ray's temporary files
    checkout: Path

    def submit(self, *entrypoint: str) -> subprocess.CompletedProcess[str]:
        options = ["--address", self.address, "--working-dir", "."]
        command = [*RAY, "job", "submit", *options, "--", *entrypoint]
        return subprocess.run(
            command, cwd=self.checkout, env=environment(), capture_output=True, text=True, timeout=180
        )

    def uploads(self) -> list[Path]:
        return list(self.folder.glob("session_2*/runtime_resources/working_dir_files/_ray_pkg_*/"))


def environment() -> dict[str, str]:
    """Return an environment in which only the upload gives access to the package, and only the token to this Ray."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
    access = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    return kept | access | {"PATH": path, "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the tracked files and add some untracked ones, as in a checkout that is in use."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    folder = tmp_path_factory.mktemp("checkout")
    for name in filter(None, listed.stdout.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for name in NOT_TO_TRAVEL:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"\0" * 1000)
    return folder


@pytest.fixture(scope="module")
def head(checkout: Path) -> Iterator[Head]:
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:  # short: sockets
        names = ("port", "dashboard-port", "dashboard-agent-listen-port", "ray-client-server-port")
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        flags = [f"--{name}={port}" for name, port in ports.items()]
        size = ["--num-cpus=2", f"--object-store-memory={100 * 2**20}"]
        command = [*RAY, "start", "--head", "--block", f"--temp-dir={folder}", *flags, *size]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, cwd=folder, env=environment(), **quiet)
        try:
            address = f"http://127.0.0.1:{ports['dashboard-port']}"
            wait_until_up(f"{address}/api/version", process)
            yield Head(address, Path(folder), checkout)
        finally:
            process.terminate()
            process.wait(60)


def free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def wait_until_up(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 90
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})
    while True:
        try:
            urllib.request.urlopen(request, timeout=5).close()
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            assert process.poll() is None, "the head has ended"
            assert time.monotonic() < deadline, "the dashboard does not answer"
            time.sleep(0.2)


def write_config(path: Path, **settings: object) -> str:
    path.write_text(yaml.safe_dump(settings))
    return str(path)


@pytest.mark.usefixtures("ray_session")
def test_scoring_runs_as_a_job_from_a_clean_checkout(head: Head, tmp_path: Path) -> None:
    candidates = config(write_prompts(tmp_path, [*"abc"]), tmp_path / "run", "FakeGenerator")
    sample(candidates)
    settings = {"output_dir": str(candidates.output_dir), "rewards": [f"{FAKES}:FakeReward"]}
    path = write_config(tmp_path / "score.yaml", **settings)
    job = head.submit("python", "-m", "pipeline.score", "--config", path)
    assert job.returncode == 0, job.stdout + job.stderr
    assert "score: wanted 6, done 6 (skipped 0), failed 0" in job.stdout
    assert "succeeded" in job.stdout
    scores = pd.read_parquet(candidates.output_dir / "scores" / "scores.parquet")
    assert scores["candidate_id"].tolist() == [f"p{number}/{index}" for number in range(3) for index in range(2)]
    assert scores["visual_quality"].notna().all()

    (upload,) = head.uploads()
    assert (upload / "model" / "presets" / "tiny").is_dir()
    assert not [name for name in NOT_TO_TRAVEL if (upload / name).exists()]


def test_a_mistaken_configuration_fails_the_job_and_its_log_says_why(head: Head, tmp_path: Path) -> None:
    """A mistake such as results in the uploaded copy of the checkout, which is deleted with the job."""
    path = write_config(tmp_path / "score.yaml", output_dir="runs/first")
    job = head.submit("python", "-m", "pipeline.score", "--config", path)
    assert job.returncode == 1
    line = next(line for line in job.stdout.splitlines() if line.startswith("error: "))
    assert "runs/first/scores lies in the copy of the working directory" in line
    assert "Give an absolute output folder" in line
    assert "failed" in job.stdout
