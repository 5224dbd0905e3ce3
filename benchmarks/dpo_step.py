"""Time and memory of a preference training step, against the published step: `python -m benchmarks.dpo_step`.

Every measurement runs in a separate process, with the variants in turns, so that other load on the machine affects all
of them; ratios are between processes of the same round. On the CPU, the time is the processor time of the process, on
all its threads, which other load disturbs least. Memory is the peak increase from before the weights were created until
the last step. On a GPU: `--size full --device cuda --clips 240p:81 480p:81`.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.dpo_variants import Setting

VARIANTS = {
    "lora": "ours, LoRA: reference with adapter off",
    "lora_cached": "ours, LoRA: reference errors cached",
    "full": "ours, full: frozen copy",
    "full_cached": "ours, full: reference errors cached",
    "published": "published step, LoRA: copied reference, EMA",
    "published_encoding": "published step, with codecs and text encoder",
}
LOSS_TOLERANCE = {False: 1e-3, True: 0.1}  # with autocast: beta multiplies the rounding of errors by 3000


def main() -> None:
    args = _parser().parse_args()
    if args.worker:
        print(json.dumps(measure(args)))
        return
    variants = args.variants + (["published_encoding"] if args.encoders else [])
    for clip in args.clips or [None]:
        rounds = [{name: _run(name, clip) for name in variants} for _ in range(args.rounds)]
        _check_losses([rows[name]["loss"] for rows in rounds for name in variants], args)
        print_table(rounds, clip or args.size)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return time, peak memory, rates and first loss of one variant, measured in this process."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from benchmarks.dpo_variants import build
    from benchmarks.generation_gpu import matrix_rate, synchronize

    torch.set_num_threads(args.threads)
    setting = _setting(args)
    rate = matrix_rate(args.device)
    encode = _encoding(args, setting) if args.worker == "published_encoding" else (lambda: None)
    before = _memory_mib(args.device)
    step = build(args.worker, setting, encode)
    with FlopCounterMode(display=False) as counter:
        loss = step()
    samples, clock = [], time.process_time if args.device == "cpu" else time.perf_counter
    for _ in range(args.repeats):
        synchronize(args.device)
        started = clock()
        step()
        synchronize(args.device)
        samples.append(clock() - started)
    peak = torch.cuda.max_memory_allocated() / 2**20 if args.device == "cuda" else _peak_rss_mib()
    seconds = statistics.median(samples)
    return {
        "loss": loss,
        "seconds": seconds,
        "mib": peak - before,
        "tokens_per_s": setting.num_tokens / seconds,
        "tflops_per_s": counter.get_total_flops() / seconds / 1e12,
        "of_matrix_rate": counter.get_total_flops() / seconds / rate,
    }


def print_table(rounds: list[dict[str, dict[str, Any]]], title: str) -> None:
    """Print the medians over rounds, and the medians of the ratios within a round."""
    print(f"\n{title}; {len(rounds)} rounds")
    print("| variant | s/step | of published | peak MiB | of published | tokens/s | TFLOP/s | of matrix rate |")
    print("|---|---|---|---|---|---|---|---|")
    for name in rounds[0]:
        median = {key: statistics.median(rows[name][key] for rows in rounds) for key in rounds[0][name]}
        ratios = {
            key: statistics.median(rows[name][key] / rows["published"][key] for rows in rounds)
            for key in ("seconds", "mib")
            if "published" in rounds[0]
        }
        shown = {key: f"{ratios[key]:.2f}" if ratios else "" for key in ("seconds", "mib")}
        print(
            f"| {VARIANTS[name]} | {median['seconds']:.3f} | {shown['seconds']} | {median['mib']:.0f} | "
            f"{shown['mib']} | {median['tokens_per_s']:.0f} | {median['tflops_per_s']:.3f} | "
            f"{median['of_matrix_rate']:.0%} |",
            flush=True,
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--variants", nargs="+", default=list(VARIANTS)[:-1], choices=list(VARIANTS)[:-1], help="steps to time"
    )
    parser.add_argument("--size", default="tiny", choices=("tiny", "middle", "full"), help="size of the network")
    parser.add_argument("--clips", nargs="+", help="resolution:frames, for example 240p:81; needed for --size full")
    parser.add_argument("--pairs", type=int, default=1, help="pairs per step")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps per process, after one warm-up")
    parser.add_argument("--rounds", type=int, default=3, help="processes per variant, in turns")
    parser.add_argument("--no_checkpointing", action="store_true", help="keep activations; published: recompute them")
    parser.add_argument(
        "--encoders",
        help="model whose codecs and text encoder run in one more variant, because the published step encodes clips "
        "and captions during training: a model folder, or tiny with --size tiny",
    )
    parser.add_argument("--worker", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--clip", help=argparse.SUPPRESS)
    return parser


def _setting(args: argparse.Namespace) -> Setting:
    from benchmarks.dpo_variants import CLIPS, Setting, published_clip

    if args.clip:
        resolution, num_frames = args.clip.split(":")
        clip = published_clip(resolution, int(num_frames))
    elif args.size in CLIPS:
        clip = CLIPS[args.size]
    else:
        sys.exit("--size full has no default clip: give --clips, for example 240p:81.")
    return Setting(args.size, clip, args.pairs, args.device, args.device == "cuda", not args.no_checkpointing)


def _encoding(args: argparse.Namespace, setting: Setting) -> Callable[[], Any]:
    """Return a function that encodes both clips of every pair and their captions with codecs and text encoder."""
    import numpy as np

    from benchmarks.dpo_variants import FPS
    from media.clip import AVClip
    from model.javisdit.network.sizes import ClipSize
    from model.javisdit.pipeline import JointAVPipeline

    pipeline = JointAVPipeline.from_pretrained(args.encoders, args.device)
    size, rng = ClipSize(*setting.clip).padded, np.random.default_rng(0)
    rate = pipeline.defaults.sample_rate
    video = rng.integers(0, 256, (size.num_frames, size.height, size.width, 3), dtype=np.uint8)
    audio = rng.uniform(-0.5, 0.5, (1, round(size.num_frames / FPS * rate))).astype(np.float32)
    clips = [AVClip(video, float(FPS), audio, rate)] * (2 * setting.num_pairs)

    def encode() -> None:
        pipeline.encode_clips(clips)
        pipeline.encode_text(["A dog barks at a passing car."] * (2 * setting.num_pairs))

    return encode


def _run(variant: str, clip: str | None) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.dpo_step", *sys.argv[1:], "--worker", variant]
    ran = subprocess.run(command + (["--clip", clip] if clip else []), capture_output=True, text=True, check=False)
    if ran.returncode:
        sys.exit(f"{variant} failed:\n{ran.stderr}")
    row: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    sys.stderr.write(f"{variant}: {row['seconds']:.3f} s/step, {row['mib']:.0f} MiB\n")
    return row


def _check_losses(losses: list[float], args: argparse.Namespace) -> None:
    spread = max(losses) - min(losses)
    if spread > LOSS_TOLERANCE[args.device == "cuda"]:
        sys.exit(f"The variants do not compute the same function: their first losses differ by {spread:.2g}.")


def _memory_mib(device: str) -> float:
    """Return the memory in use, in MiB, and reset the peak on a GPU."""
    import torch

    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**20
    return _peak_rss_mib()


def _peak_rss_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
