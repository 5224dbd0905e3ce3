"""Compare two checkouts to the bit: `python -m benchmarks.same_results --before ../earlier --after .`.

In each checkout the commands make Bounce prompts, candidates, scores and pairs of the tiny preset, encode the pairs and
make one DPO step, with one thread. The script then compares tables, media files, latents, the training set, the losses
and the weights of the adapter. Timings, paths and versions are left out. Exit status 1 if anything differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

TIMINGS = ("generation_s",)
LOGGED = ("loss", "grad_norm", "rewards/", "error/", "ref_error/", "logps/")  # log entries that are results
COMMANDS = (
    "synthetic.make --num_clips {num_prompts} --first_seed 500000 --output {out}/prompts",
    "pipeline.run --config recipes/tiny/pipeline.yaml --prompts {out}/prompts/prompts.parquet --output_dir {out}/run "
    "--num_actors 1 --device cpu",
    "dpo.prepare --pairs {out}/run/pairs --model tiny --output {out}/training",
    "dpo.train --config recipes/tiny/dpo.yaml --dataset {out}/training --output_dir {out}/dpo --max_steps 1 "
    "--logging_steps 1",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="a checkout, for example made by `git worktree add`")
    parser.add_argument("--after", type=Path, default=Path.cwd(), help="the other checkout")
    parser.add_argument("--num_prompts", type=int, default=8)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as threads:
        outs = [Path(folder, name) for name in ("before", "after")]
        checkouts = (args.before.resolve(), args.after.resolve())
        list(threads.map(make_results, checkouts, outs, [args.num_prompts] * 2))
        same = [report(name, read, *outs) for name, read in RESULTS.items()]
    return int(not all(same))


def make_results(checkout: Path, out: Path, num_prompts: int) -> None:
    """Run the commands with the code of `checkout`; their results go below `out`."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    for command in COMMANDS:
        words = command.format(out=out, num_prompts=num_prompts).split()
        done = subprocess.run(
            [sys.executable, "-m", *words], cwd=checkout, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"`python -m {' '.join(words)}` failed in {checkout}:\n{done.stderr[-4000:]}")


def report(name: str, read: Callable[[Path], dict[str, str]], before: Path, after: Path) -> bool:
    """Print how many results of a kind are the same, and which are not."""
    ours, theirs = read(before), read(after)
    different = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    print(f"{name}: {len(ours)} before, {len(theirs)} after, {len(different)} differ {different[:5] or ''}", flush=True)
    return bool(ours) and not different


def columns_of(table: pa.Table) -> dict[str, str]:
    """Column -> digest of its values."""
    kept = [name for name in table.column_names if name not in TIMINGS]
    return {name: digest(repr(table[name].to_pylist()).encode()) for name in kept}


def files_below(folder: Path, *suffixes: str) -> dict[str, str]:
    """Relative path -> digest of the content, for every file with one of the suffixes."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix in suffixes)
    return {str(path.relative_to(folder)): digest(path.read_bytes()) for path in paths}


def losses(out: Path) -> dict[str, str]:
    """Step and entry -> value, for the entries of the training log that are results."""
    lines = [json.loads(line) for line in (out / "dpo" / "train_log.jsonl").read_text().splitlines()]
    return {
        f"{line['step']} {key}": repr(value) for line in lines for key, value in line.items() if key.startswith(LOGGED)
    }


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


RESULTS: dict[str, Callable[[Path], dict[str, str]]] = {
    "columns of candidates": lambda out: columns_of(pq.read_table(out / "run/candidates/candidates.parquet")),
    "files of candidates": lambda out: files_below(out / "run/candidates", ".mp4", ".wav", ".safetensors"),
    "columns of scores": lambda out: columns_of(pq.read_table(out / "run/scores/scores.parquet")),
    "columns of pairs": lambda out: columns_of(datasets.load_from_disk(str(out / "run/pairs")).data.table),
    "columns of the training set": lambda out: columns_of(datasets.load_from_disk(str(out / "training")).data.table),
    "logged values of the DPO step": losses,
    "weights after the DPO step": lambda out: files_below(out / "dpo", ".safetensors"),
}

if __name__ == "__main__":
    sys.exit(main())
