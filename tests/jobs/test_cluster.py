"""Stages on a real Ray cluster of several nodes on this machine, of which some are killed while they work.

The driver is a process of its own: this one may be connected to the Ray of other tests.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

from tests.pipeline.test_faults import FAKES, files, journal_counts, write_prompts

ROOT = Path(__file__).parents[2]
NODE = {"num_cpus": 2, "object_store_memory": 100 * 2**20}
QUICK_TO_MISS_A_NODE = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000}

# Jobs on workers that tell where they run. It waits for a line of its input after the first result.
DRIVER = """
import json, sys
from jobs import crew
from jobs.workers import Pool, map_jobs
from tests.pipeline.fakes import NodeActor

crew.PATIENCE_S = 2
num_jobs, batch_size, num_bytes = map(int, sys.argv[1:])
pool = Pool(4, 4, num_cpus=1, num_gpus=0, batch_size=batch_size, max_tries=1)
jobs = [{"key": str(number)} for number in range(num_jobs)]
for number, result in enumerate(map_jobs(jobs, NodeActor, {"num_bytes": num_bytes}, pool)):
    print(json.dumps(result | {"content": len(result.get("content", ""))}), flush=True)
    if number == 0:
        input()
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head that runs no workers; each test adds its nodes, and removes those that it leaves."""
    from ray.cluster_utils import Cluster

    os.environ.setdefault("PYTHONPATH", str(ROOT))  # for the workers of its nodes
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": QUICK_TO_MISS_A_NODE}
    started = Cluster(initialize_head=True, connect=False, head_node_args=NODE | head)
    yield started
    started.shutdown()


@pytest.fixture
def nodes(cluster: Any) -> Iterator[list[Any]]:
    """Two nodes with room for two workers each."""
    added = [cluster.add_node(**NODE, wait=False) for _ in range(2)]
    cluster.wait_for_nodes()
    yield added
    for node in list(cluster.worker_nodes):
        cluster.remove_node(node, allow_graceful=False)


def start(cluster: Any, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"RAY_ADDRESS": cluster.address, "PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, *arguments], cwd=ROOT, env=environment, text=True, **pipes)


def sample(cluster: Any, prompts: Path, output_dir: Path, model: str, *flags: str) -> subprocess.Popen[str]:
    paths = ["--prompts", str(prompts), "--output_dir", str(output_dir), "--model", f"{FAKES}:{model}"]
    return start(cluster, "-m", "pipeline.sample", *paths, "--num_candidates", "2", *flags)


def ended(process: subprocess.Popen[str], text: str = "") -> tuple[str, str]:
    out, errors = process.communicate(text, timeout=120)
    assert process.returncode == 0, errors
    return out, errors


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def read_results(out: str) -> list[dict[str, Any]]:
    """What `DRIVER` prints; Ray's own words on a lost node stand between."""
    return [json.loads(line) for line in out.splitlines() if line.startswith('{"key"')]


def is_at_work(node: Any) -> bool:
    """Whether a worker on the node runs a job, by the title that Ray gives its process."""
    raylet = node.all_processes["raylet"][0].process
    titles = []
    for process in psutil.Process(raylet.pid).children(recursive=True):
        try:
            titles.append(" ".join(process.cmdline()))
        except psutil.NoSuchProcess:
            continue
    return any("_Runner.run" in title for title in titles)


def kill(cluster: Any, node: Any) -> None:
    """As a machine that is taken away: workers and store at once, with no word to anyone."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    for process in [*raylet.children(recursive=True), raylet]:
        process.send_signal(signal.SIGKILL)
    cluster.remove_node(node, allow_graceful=False)


def test_a_node_lost_in_mid_run_costs_nothing_and_changes_nothing(
    cluster: Any, nodes: list[Any], tmp_path: Path
) -> None:
    prompts = write_prompts(tmp_path, [f"text {number}" for number in range(16)])
    run, single = tmp_path / "run" / "candidates", tmp_path / "single" / "candidates"
    disturbed = sample(cluster, prompts, run.parent, "SlowGenerator", "--num_actors", "4", "--batch_size", "2")
    wait_for(lambda: (run / "journal.jsonl").exists() and len(journal_counts(run)) >= 6, disturbed)
    wait_for(lambda: is_at_work(nodes[0]), disturbed)
    kill(cluster, nodes[0])
    out, errors = ended(disturbed)
    assert "sample: wanted 32, done 32 (skipped 0), failed 0" in out, errors
    assert len(journal_counts(run)) == 32
    assert set(journal_counts(run).values()) == {1}

    ended(sample(cluster, prompts, single.parent, "FakeGenerator"))
    assert files(run / "media") == files(single / "media")
    tables = [pd.read_parquet(folder / "candidates.parquet") for folder in (run, single)]
    tables = [table.drop(columns="generation_s") for table in tables]  # how long it took is no part of what was made
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_a_run_whose_last_node_is_lost_says_that_it_waits_and_goes_on_where_one_joins(
    cluster: Any, nodes: list[Any]
) -> None:
    process = start(cluster, "-c", DRIVER, "24", "1", "1")
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    for node in nodes:
        kill(cluster, node)
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("No worker of 4 is set up after"):
            break
    assert "each needs 1 CPU and 0 GPU, and the cluster has 0 of " in line
    joined = cluster.add_node(**NODE)
    out, _ = ended(process)
    results = [first, *read_results(out)]
    assert sorted(int(result["key"]) for result in results) == list(range(24))
    # No job is blamed for the nodes, though each may be tried but once.
    assert all(result["tries"] == 1 and "lost" not in result for result in results)
    assert results[-1]["node"] == joined.node_id != first["node"]


def test_results_that_a_lost_node_held_are_made_again(cluster: Any, nodes: list[Any]) -> None:
    """Too large to travel with the message that they are ready: the driver has yet to fetch them."""
    process = start(cluster, "-c", DRIVER, "48", "12", str(300_000))
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    wait_for(lambda: not any(is_at_work(node) for node in nodes), process)
    for node in nodes:
        if node.node_id != first["node"]:
            kill(cluster, node)
    out, _ = ended(process, "\n")
    results = [first, *read_results(out)]
    assert sorted(int(result["key"]) for result in results) == list(range(48))
    assert all(result["content"] == 300_000 and result["tries"] == 1 for result in results)
