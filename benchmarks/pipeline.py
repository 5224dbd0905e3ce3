"""Overhead of the pipeline itself: `python -m benchmarks.pipeline --num_candidates 1000 5000 20000`.

Sampling and scoring run as usual, on Ray, with a model and a reward that do nothing. Encoding and decoding belong to
the model and the rewards and are left out: a clip is an empty file with its final name, and is scored without being
read. Included are jobs and results through Ray, both journals, the checks for finished work, and both tables.

Each size runs in a separate process, with a separate Ray of two cores. The start of Ray and of the workers (imports and
models; "start", measured by a run over one prompt per worker) does not count in the rate. "CPU" is the driver's
processor time per candidate, which, unlike the rate, does not depend on other load. "growth" is the growth of the
driver's memory from the first result of a stage to the last, the larger of the two stages. "peak" is the driver's peak
memory, including the tables, which are written at the end.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import psutil

import pipeline.sample.command
import pipeline.score.command
from jobs.workers import start_local_ray
from media import AVClip
from media.clip import empty_audio
from pipeline.sample.command import sample
from pipeline.sample.config import SampleConfig
from pipeline.score.command import score
from pipeline.score.config import ScoreConfig
from rewards import Reward

CANDIDATES_PER_PROMPT = 4
HEADER = "| candidates | sample (s) | score (s) | start (s) | candidates/s | CPU (ms) | growth (MiB) | peak (MiB) |"


class NoOpGenerator:
    """Model that generates one black pixel per candidate, written as an empty file."""

    def __init__(self, device: str, dtype: str) -> None:
        import media

        media.write_clip = write_empty_file

    def __call__(self, prompts: list[str], *, seeds: list[int], output: str, **options: Any) -> list[Any]:
        return [(black_pixel(), None) for _ in prompts]


class NoOpReward(Reward):
    """Reward with the same score for every clip; no clip is read."""

    name = "no_op"
    version = "1"
    columns = ("no_op",)
    higher_is_better: ClassVar[dict[str, bool]] = {"no_op": True}
    needs = frozenset({"video"})
    licence = "none"

    def __init__(self) -> None:
        from rewards import decode

        decode.decode = lambda *wanted: black_pixel()

    def score(self, clips: list[AVClip], prompts: list[Any]) -> dict[str, Any]:
        import torch

        return {"no_op": torch.zeros(len(clips))}


def write_empty_file(clip: AVClip, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def black_pixel() -> AVClip:
    return AVClip(np.zeros((1, 1, 1, 3), np.uint8), 16.0, empty_audio(), 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_candidates", type=int, nargs="+", default=[1000, 5000, 20_000])
    parser.add_argument("--num_actors", type=int, default=2)
    parser.add_argument("--batch_size", type=int, default=1, help="prompts per task")
    args = parser.parse_args()
    print(f"{HEADER}\n{'|---' * 8}|", flush=True)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as processes:
        for num_candidates in args.num_candidates:
            row = processes.submit(measure, num_candidates, args.num_actors, args.batch_size).result()
            print(row, flush=True)


def measure(num_candidates: int, num_actors: int, batch_size: int) -> str:
    """Run both stages for one size and return a row of the table."""
    root = str(Path(__file__).parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))  # for the workers
    start_local_ray(num_cpus=2)
    settings = {"num_actors": num_actors, "batch_size": batch_size}
    growth = [_watch_memory(stage) for stage in (pipeline.sample.command, pipeline.score.command)]
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):  # hides the stages' output
        start = sum(run(Path(folder) / "start", num_actors, settings | {"batch_size": 1}))
        cpu = time.process_time()
        seconds = run(Path(folder) / "run", num_candidates // CANDIDATES_PER_PROMPT, settings)
        cpu = time.process_time() - cpu
    rate = num_candidates / (sum(seconds) - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    times = " | ".join(f"{value:.1f}" for value in (*seconds, start))
    grown = max(memory[-1] - memory[0] for memory in growth) / 2**20
    return (
        f"| {num_candidates:,} | {times} | {rate:.0f} | {1000 * cpu / num_candidates:.2f} | {grown:.1f} | {peak:.0f} |"
    )


def _watch_memory(stage: ModuleType) -> list[int]:
    """Make a stage record its memory in bytes at each result; the returned list is that of its last run."""
    map_jobs, memory = vars(stage)["map_jobs"], []

    def watched(*args: Any) -> Iterator[Any]:
        memory.clear()
        for result in map_jobs(*args):
            yield result
            memory.append(psutil.Process().memory_info().rss)

    vars(stage)["map_jobs"] = watched
    return memory


def run(folder: Path, num_prompts: int, settings: dict[str, Any]) -> tuple[float, float]:
    """Sample and score, and return the seconds of each."""
    folder.mkdir()
    text = "A small brown dog runs along the beach and barks at the waves, take "
    rows = ({"prompt_id": f"p{number:08}", "prompt": f"{text}{number}"} for number in range(num_prompts))
    prompts = folder / "prompts.jsonl"
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    times = [time.perf_counter()]
    model, reward = (f"benchmarks.pipeline:{name}" for name in ("NoOpGenerator", "NoOpReward"))
    sampled = sample(
        SampleConfig(prompts=prompts, output_dir=folder, model=model, num_candidates=CANDIDATES_PER_PROMPT, **settings)
    )
    times.append(time.perf_counter())
    scored = score(ScoreConfig(output_dir=folder, rewards=[reward], **settings))
    times.append(time.perf_counter())
    assert sampled.done == scored.done == num_prompts * CANDIDATES_PER_PROMPT
    return times[1] - times[0], times[2] - times[1]


if __name__ == "__main__":
    main()
