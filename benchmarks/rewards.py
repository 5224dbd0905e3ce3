"""Clips per second of the rewards: `python -m benchmarks.rewards`, or `--size full --device cuda --dtype bfloat16`.

Clips of Bounce (tiny) or of noise at 240p and 4 s (full: published sizes, random weights) are written to files and
scored with `RewardSuite`, by each reward alone and by all together. "decode" is the time of decoding alone, on the same
number of threads, as a share of the total time; during scoring, decoding runs in parallel.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from media import AVClip, write_clip
from rewards import ClipFile, Prompt, Reward, RewardSuite, expand_names, get_reward
from rewards.decode import decode_ahead
from synthetic.captions import caption
from synthetic.render import render_clip
from synthetic.scene import HELD_OUT_SEED_START, scene_from_seed

FULL_FRAMES, FULL_HEIGHT, FULL_WIDTH, FULL_FPS, SAMPLE_RATE = 65, 240, 432, 16.0, 16_000
WARMUP_CLIPS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="tiny", choices=["tiny", "full"])
    parser.add_argument("--rewards", nargs="+", default=["learned"])
    parser.add_argument("--num_clips", type=int, default=64)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[8])
    parser.add_argument("--num_decoders", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("There is no CUDA device: run this on a machine with a GPU, or with --device cpu.")
    names = expand_names(args.rewards)
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(Path(folder), args.size, args.num_clips)
        print(
            f"{device_name(args.device)}, torch {torch.__version__}, {args.dtype}; {args.num_clips} {args.size} clips\n"
        )
        print("| rewards | batch | clips/s | decode | peak GiB |")
        print("|---|---|---|---|---|")
        rewards = {name: load(name, args) for name in names}
        for chosen in [*([name] for name in names), *([names] if len(names) > 1 else [])]:
            for batch_size in args.batch_sizes:
                print_row([rewards[name] for name in chosen], files, batch_size, args)


def load(name: str, args: argparse.Namespace) -> Reward:
    if args.size == "full" and name != "verifiable":
        from benchmarks.random_rewards import random_reward

        return random_reward(name, args.device, getattr(torch, args.dtype))
    reward = get_reward(name)
    return reward.load("tiny" if reward.published else None, device=args.device, dtype=args.dtype)


def print_row(rewards: Sequence[Reward], files: list[ClipFile], batch_size: int, args: argparse.Namespace) -> None:
    suite = RewardSuite(rewards, batch_size=batch_size, num_decoders=args.num_decoders)
    suite.score_files(files[:WARMUP_CLIPS])
    if args.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    rows = suite.score_files(files)
    seconds = time.perf_counter() - started
    if errors := [row.error for row in rows if row.error]:
        sys.exit(f"{len(errors)} clips could not be scored; the first error: {errors[0]}")
    decoding = decode_seconds(files, suite, batch_size)
    peak = f"{torch.cuda.max_memory_allocated() / 2**30:.1f}" if args.device == "cuda" else "-"
    label = "all" if len(rewards) > 1 else rewards[0].name
    print(f"| {label} | {batch_size} | {len(files) / seconds:.2f} | {decoding / seconds:.0%} | {peak} |", flush=True)


def decode_seconds(files: list[ClipFile], suite: RewardSuite, batch_size: int) -> float:
    batches = [files[start : start + batch_size] for start in range(0, len(files), batch_size)]
    started = time.perf_counter()
    for _ in decode_ahead(batches, suite.needs, suite.num_decoders, suite.frames):
        pass
    return time.perf_counter() - started


def write_files(folder: Path, size: str, num_clips: int) -> list[ClipFile]:
    files = []
    for index in range(num_clips):
        scene = scene_from_seed(HELD_OUT_SEED_START + index)
        path = folder / f"{index}.mp4"
        write_clip(render_clip(scene) if size == "tiny" else noise_clip(index), path)
        files.append(ClipFile(str(index), path, path.with_suffix(".wav"), Prompt(str(index), caption(scene))))
    return files


def noise_clip(seed: int) -> AVClip:
    """Return a clip of moving noise in blocks, which is about as much work for the codec as a film."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (FULL_FRAMES, FULL_HEIGHT // 8, FULL_WIDTH // 8, 3), dtype=np.uint8)
    video = coarse.repeat(8, axis=1).repeat(8, axis=2)
    audio = 0.1 * rng.standard_normal((1, round(FULL_FRAMES / FULL_FPS * SAMPLE_RATE)))
    return AVClip(video, FULL_FPS, audio.clip(-1, 1).astype(np.float32), SAMPLE_RATE)


def device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} CPU threads"


if __name__ == "__main__":
    main()
