"""Time and memory of an evaluation, from cached values to the table of results: `python -m benchmarks.evaluation`.

The benchmark has the size of JavisBench with its 19 categories. Each sample and each ground-truth clip is a small file
for picture and one for sound; all features and scores are random and in the cache. `evaluation.run --metrics all` then
runs in a separate process, once as after a copy (no file's digest is known) and once again. "peak" is the peak memory
of this process, including libraries.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from evaluation.run.categories import ASPECTS, PUBLISHED_COLUMNS
from evaluation.run.command import evaluate, prepare
from evaluation.run.config import EvaluateConfig
from rewards.registry import BUILTIN_JUDGES, get_judge

HEADER = "| rows | protocol | run | wall (s) | CPU (s) | peak (GiB) |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_rows", type=int, nargs="+", default=[10_140])
    parser.add_argument("--protocols", nargs="+", default=["correct", "javisbench"])
    parser.add_argument("--num_bootstrap", type=int, default=2000)
    args = parser.parse_args()
    print(f"{HEADER}\n{'|---' * 6}|", flush=True)
    for num_rows in args.num_rows:
        with tempfile.TemporaryDirectory() as folder:
            write_files(Path(folder), num_rows)
            for protocol in args.protocols:
                settings = {"protocol": protocol, "num_bootstrap": args.num_bootstrap}
                in_process(fill_cache, Path(folder), settings)
                (Path(folder) / "cache" / "files.parquet").unlink(missing_ok=True)
                for run in ("first", "again"):
                    wall, cpu, peak = in_process(measure, Path(folder), settings)
                    row = f"| {num_rows:,} | {protocol} | {run} | {wall:.1f} | {cpu:.1f} | {peak:.2f} |"
                    print(row, flush=True)


def in_process(work: Callable[..., Any], *args: object) -> Any:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
        return processes.submit(work, *args).result()


def write_files(folder: Path, num_rows: int) -> None:
    """Write the table of a benchmark, its clips and samples, and weights; the files only have different contents."""
    rng = np.random.default_rng(0)
    for name in ("samples", "clips", "weights"):
        (folder / name).mkdir()
    for row in range(num_rows):
        for suffix in ("mp4", "wav"):
            (folder / "samples" / f"sample_{row:04d}.{suffix}").write_text(f"sample {row} {suffix}")
            (folder / "clips" / f"{row}.{suffix}").write_text(f"clip {row} {suffix}")
    for name in BUILTIN_JUDGES:
        published = get_judge(name).published
        if published is not None:
            file = folder / "weights" / published
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(published)
    numbers = range(num_rows)
    columns: dict[str, object] = {
        "id": [f"clip-{row}" for row in numbers],
        "path": [f"clips/{row}.mp4" for row in numbers],
        "audio_path": [f"clips/{row}.wav" for row in numbers],
        "text": [f"A small brown dog runs along the beach and barks at the waves, take {row}." for row in numbers],
    }
    for column, names in zip(PUBLISHED_COLUMNS, ASPECTS.values(), strict=True):
        columns[column] = rng.integers(len(names), size=num_rows)
    pd.DataFrame(columns).to_csv(folder / "JavisBench.csv", index=False)


def config(folder: Path, settings: dict[str, object]) -> EvaluateConfig:
    return EvaluateConfig(
        samples=folder / "samples",
        benchmark=folder / "JavisBench.csv",
        output=folder / "results",
        cache=folder / "cache",
        weights=str(folder / "weights"),
        **settings,  # type: ignore[arg-type]
    )


def fill_cache(folder: Path, settings: dict[str, object]) -> None:
    """Fill the cache with random values of every judge for every clip."""
    measurement = prepare(config(folder, settings)).measurement
    rng = np.random.default_rng(0)
    for keys in measurement.keys:
        for name, own in keys.items():
            store = measurement.stores[name]
            for key in filter(None, own):
                values = {
                    output: np.asarray(rng.normal(size=width or ()), np.float32)
                    for output, width in store.outputs.items()
                }
                store.add(key, values)
            store.flush()


def measure(folder: Path, settings: dict[str, object]) -> tuple[float, float, float]:
    """Run the evaluation and return wall seconds, CPU seconds and peak memory in GiB."""
    os.sync()
    start, cpu = time.perf_counter(), time.process_time()
    with redirect_stdout(sys.stderr):  # keeps the output free of other lines
        evaluate(config(folder, settings))
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    return wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
