"""Time and memory of ranking: `python -m benchmarks.ranking --num_prompts 30000 1000000`.

Each size runs in a separate process. It ranks a table of candidates like that of `pipeline.sample` and
`pipeline.score`, with random scores, writes the pairs as a dataset and reads them back into pandas. "peak" is the peak
memory of the process, including libraries and the table of candidates.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.rank.pairing import PairRules, rank_pairs
from pipeline.rank.pairs_table import write_dataset
from rewards import METRIC_COLUMNS

HEADER = "| prompts | candidates | pairs | rank (s) | write (s) | read (s) | together (s) | CPU (s) | peak (GiB) |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_prompts", type=int, nargs="+", default=[30_000])
    parser.add_argument("--num_candidates", type=int, default=4)
    parser.add_argument("--strategy", default="modality_micro")
    parser.add_argument("--pairs_per_prompt", type=int, default=1)
    parser.add_argument("--shuffle", action="store_true", help="rows in random order")
    args = parser.parse_args()
    print(f"{HEADER}\n{'|---' * 9}|", flush=True)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as processes:
        for num_prompts in args.num_prompts:
            print(processes.submit(measure, num_prompts, args).result(), flush=True)


def measure(num_prompts: int, args: argparse.Namespace) -> str:
    """Run one size and return a row of the table."""
    import datasets  # imported before timing starts

    table = candidates(num_prompts, args.num_candidates, args.shuffle)
    rules = PairRules(pairs_per_prompt=args.pairs_per_prompt)
    cpu = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        times = [time.perf_counter()]
        pairs = rank_pairs(table, args.strategy, rules=rules).pairs
        times.append(time.perf_counter())
        path = Path(folder) / "pairs"
        write_dataset(pairs, METRIC_COLUMNS, path, path)
        times.append(time.perf_counter())
        again = datasets.load_from_disk(str(path)).to_pandas()
        times.append(time.perf_counter())
    assert again["pair_id"].equals(pairs["pair_id"])
    seconds = [*np.diff(times), times[-1] - times[0], time.process_time() - cpu]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    counts = [f"{count:,}" for count in (num_prompts, len(table), len(pairs))]
    return "| " + " | ".join([*counts, *(f"{value:.2f}" for value in seconds), f"{peak:.2f}"]) + " |"


def candidates(num_prompts: int, num_candidates: int, shuffle: bool) -> pd.DataFrame:
    """Return a table of candidates with random scores, ground truth first; prompts have about 80 characters."""
    rng = np.random.default_rng(0)
    count = num_prompts * num_candidates
    index = np.tile(np.arange(num_candidates) - 1, num_prompts)
    is_truth = index == -1
    number = pa.array(np.repeat(np.arange(num_prompts), num_candidates)).cast(pa.string())
    prompt_id = pc.binary_join_element_wise("p", pc.utf8_lpad(number, 8, "0"), "")
    place = pc.if_else(pa.array(is_truth), "gt", pa.array(index).cast(pa.string()))
    candidate_id = pc.binary_join_element_wise(prompt_id, place, "/")
    text = "A small brown dog runs along the beach and barks at the waves, take "
    columns = {
        "candidate_id": candidate_id,
        "prompt_id": prompt_id,
        "prompt": pc.binary_join_element_wise(text, prompt_id, ""),
        "index": index,
        "is_ground_truth": is_truth,
        "seed": pc.if_else(pa.array(is_truth), pa.scalar(None, pa.int64()), pa.array(rng.integers(2**62, size=count))),
    }
    for name, suffix in (("video_path", ".mp4"), ("audio_path", ".wav"), ("latents_path", ".safetensors")):
        columns[name] = pc.binary_join_element_wise("media/", candidate_id, suffix, "")
    sizes = {"num_frames": 81, "height": 480, "width": 854, "fps": 16.0, "sample_rate": 16_000, "duration_s": 81 / 16}
    columns |= {name: np.full(count, value) for name, value in sizes.items()}
    columns |= {name: rng.normal(size=count) for name in METRIC_COLUMNS}
    table = pa.table(columns)
    if shuffle:
        table = table.take(pa.array(rng.permutation(count)))
    return table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)


if __name__ == "__main__":
    main()
