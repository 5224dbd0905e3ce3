"""Time of one step of the joint transformer on the CPU against published arithmetic: `python -m benchmarks.dit_step`.

Each variant runs in a separate process, in turns, and reports its median time and its peak memory above the memory
before the first step. With `--upstream PATH`, a checkout of the published repository is timed too; its attention, which
exists only for CUDA, is replaced by torch's fused kernel.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

VARIANTS = {
    "ours": "this project, eager",
    "ours_compiled": "this project, torch.compile per block",
    "published": "published arithmetic, attention by its definition",
    "published_fused": "published arithmetic, torch's fused attention",
    "upstream": "a checkout of the published repository, fused attention",
}
VIDEO_GRID, AUDIO_GRID = (14, 10, 25), (50, 8)  # 3,500 and 400 tokens
TEXT_LEN, TEXT_DIM, REAL_TEXT_LENGTHS = 512, 4096, (40, 90)
SIZES = {"dim": 512, "ffn_dim": 2048, "num_heads": 8, "num_layers": 8, "text_dim": TEXT_DIM, "freq_dim": 256}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", default=["ours", "published", "published_fused"], choices=VARIANTS)
    parser.add_argument("--repeats", type=int, default=5, help="timed steps per process and kind, after one warm-up")
    parser.add_argument("--rounds", type=int, default=2, help="processes per variant, in turns")
    parser.add_argument("--batch_size", type=int, default=1, help="samples per step; sampling with guidance has 2")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--upstream", type=Path, help="also time a checkout of the published repository")
    parser.add_argument("--worker", choices=VARIANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(measure(args)))
        return
    if "upstream" in args.variants and not args.upstream:
        parser.error("the variant 'upstream' needs a checkout: give --upstream CHECKOUT")
    variants = args.variants + (["upstream"] if args.upstream and "upstream" not in args.variants else [])
    results: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    for _ in range(args.rounds):
        for name in variants:
            command = [sys.executable, "-m", "benchmarks.dit_step", *sys.argv[1:], "--worker", name]
            ran = subprocess.run(command, capture_output=True, text=True, check=False)
            if ran.returncode:
                sys.exit(f"{name} failed:\n{ran.stderr}")
            results[name].append(json.loads(ran.stdout.splitlines()[-1]))
    print_table(results)


def print_table(results: dict[str, list[dict[str, float]]]) -> None:
    """Print the medians over rounds as a table; ratios are relative to this project's eager time."""
    kinds = ("forward_s", "forward_backward_s", "forward_mib", "forward_backward_mib")
    medians = {
        name: {kind: statistics.median(row[kind] for row in rows) for kind in kinds} for name, rows in results.items()
    }
    print("| variant | forward | ours / it | forward + backward | ours / it | peak memory | with backward |")
    print("|---|---|---|---|---|---|---|")
    for name, row in medians.items():
        ratios = [f"{medians['ours'][kind] / row[kind]:.2f}" if "ours" in medians else "" for kind in kinds[:2]]
        print(
            f"| {VARIANTS[name]} | {row['forward_s']:.2f} s | {ratios[0]} | {row['forward_backward_s']:.2f} s | "
            f"{ratios[1]} | {row['forward_mib']:.0f} MiB | {row['forward_backward_mib']:.0f} MiB |"
        )


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Return the times (s) and peak memory (MiB) of one variant, measured in this process."""
    import torch

    torch.set_num_threads(args.threads)
    step, parameters = build(args)
    row = {}
    for kind, run in (("forward", forward_only(step)), ("forward_backward", forward_backward(step, parameters))):
        release_freed_memory()
        before, samples = resident_mib(), []
        reset_peak()
        run()
        for _ in range(args.repeats):
            started = time.perf_counter()
            run()
            samples.append(time.perf_counter() - started)
        row |= {f"{kind}_s": statistics.median(samples), f"{kind}_mib": peak_mib() - before}
    return row


def build(args: argparse.Namespace) -> tuple[Callable, list]:
    """Return a function that computes the (video, audio) velocities of a variant, and the trained parameters.

    Asserts that every variant computes the same function.
    """
    import torch

    from benchmarks.published_arithmetic import PublishedArithmetic
    from model.javisdit.network.config import JointDiTConfig
    from model.javisdit.network.transformer import JointDiT

    torch.manual_seed(0)
    model = JointDiT(JointDiTConfig(**SIZES))
    for head in (model.head, model.audio_head):
        torch.nn.init.normal_(head.head.weight, std=0.02)
    inputs = make_inputs(args.batch_size)
    with torch.no_grad():
        expected = model(*inputs)
    if args.worker == "ours_compiled":
        model.compile_blocks()
    if args.worker in ("ours", "ours_compiled"):
        return lambda: model(*inputs), list(model.parameters())
    if args.worker == "upstream":
        from benchmarks.upstream_model import load_upstream

        reference = load_upstream(args.upstream, model)
    else:
        reference = PublishedArithmetic(model, fused_attention=args.worker == "published_fused")
    with torch.no_grad():
        for got, wanted in zip(reference(*inputs), expected, strict=True):
            assert (got - wanted).abs().max() <= 1e-4 * wanted.std(), "not the same function"
    return lambda: reference(*inputs), list(reference.parameters())


def make_inputs(batch_size: int) -> tuple:
    import torch

    generator = torch.Generator().manual_seed(0)
    frames, height, width = VIDEO_GRID
    video = torch.randn(batch_size, 16, frames, 2 * height, 2 * width, generator=generator)
    audio = torch.randn(batch_size, 8, 2 * AUDIO_GRID[0], 2 * AUDIO_GRID[1], generator=generator)
    text = torch.randn(batch_size, TEXT_LEN, TEXT_DIM, generator=generator)
    lengths = torch.tensor([REAL_TEXT_LENGTHS[i % 2] for i in range(batch_size)])
    mask = torch.arange(TEXT_LEN) < lengths[:, None]
    return video, audio, torch.full((batch_size,), 700.0), text, mask


def forward_only(step: Callable) -> Callable[[], None]:
    import torch

    def run() -> None:
        with torch.no_grad():
            step()

    return run


def forward_backward(step: Callable, parameters: list) -> Callable[[], None]:
    def run() -> None:
        for parameter in parameters:
            parameter.grad = None
        video, audio = step()
        (video.square().mean() + audio.square().mean()).backward()

    return run


def release_freed_memory() -> None:
    """Return freed heap memory to the system; otherwise, a later step would reuse it without a visible peak."""
    ctypes.CDLL(None).malloc_trim(0)


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def peak_mib() -> float:
    return _status_mib("VmHWM")


def resident_mib() -> float:
    return _status_mib("VmRSS")


def _status_mib(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) / 1024


if __name__ == "__main__":
    main()
