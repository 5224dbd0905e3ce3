"""Time of denoising at the published size on a GPU: `python -m benchmarks.generation_gpu --compile --backend cudnn`.

With random weights in bfloat16, 50 Euler steps and guidance 5 (two samples per evaluation), the benchmark prints
seconds per clip, peak memory, and the achieved rate relative to the card's rate of matrix products, measured first.
Joint generation is compared with video alone. No codec and no text encoder runs; the published figure for 240p and 4 s
on an H200 is 10 s.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from itertools import pairwise

import torch
from torch.utils.flop_counter import FlopCounterMode

from model.flow import INFERENCE_SHIFT_SCALE, euler_step, guide, sampling_timesteps
from model.javisdit.codecs.audio_lengths import training_mel_frames
from model.javisdit.network.attention import ATTENTION_BACKENDS
from model.javisdit.network.config import SIZES, JointDiTConfig
from model.javisdit.network.sizes import ClipSize, image_size, nearest_num_frames
from model.javisdit.network.transformer import JointDiT

FPS = 16
LATENT_MEL_FRAMES, LATENT_BANDS = 4, 16  # mel frames per latent step, bands per step
MATRIX_SIZE, MATRIX_REPEATS = 8192, 20
PUBLISHED_JOINT_OVERHEAD = 0.016


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", nargs="+", default=["240p:4", "480p:5"], help="resolution:seconds")
    parser.add_argument("--aspect_ratio", default="9:16", help="height:width")
    parser.add_argument("--size", default="javisdit_pp", help=f"{', '.join(SIZES)} or tiny")
    parser.add_argument("--num_inference_steps", type=int, default=50)
    parser.add_argument("--backend", nargs="+", default=["auto"], choices=ATTENTION_BACKENDS)
    parser.add_argument("--compile", action="store_true", help="also time blocks compiled by torch.compile")
    parser.add_argument("--device", default="cuda", help="cpu is only for trying this script with --size tiny")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("There is no CUDA device: run this on a machine with a GPU.")
    config = JointDiTConfig.from_preset(args.size)
    with torch.device(args.device):
        model = JointDiT(config).to(torch.bfloat16).eval()
    ceiling = matrix_rate(args.device)
    print(f"{device_name(args.device)}, torch {torch.__version__}; bf16 matrix product: {ceiling / 1e12:.0f} TFLOP/s\n")
    print("| clip | tokens | attention | blocks | s/clip | TFLOP/s | of matrix rate | peak GiB | over video alone |")
    print("|---|---|---|---|---|---|---|---|---|")
    for compiled in [False, True] if args.compile else [False]:
        if compiled:
            model.compile_blocks()
        for backend in args.backend:
            model.set_attention_backend(backend)
            for clip in args.clips:
                label = f"{backend} | {'compiled' if compiled else 'eager'}"
                print_row(model, clip, label, ceiling, args)


def print_row(model: JointDiT, clip: str, label: str, ceiling: float, args: argparse.Namespace) -> None:
    resolution, seconds = clip.split(":")
    num_frames = nearest_num_frames(float(seconds), FPS)
    size = ClipSize(num_frames, *image_size(resolution, args.aspect_ratio)).padded
    latents = random_latents(model.config, size, args.device)
    joint, peak = denoise_seconds(model, latents, size, args)
    alone, _ = denoise_seconds(model, {"video": latents["video"]}, size, args)
    work = args.num_inference_steps * step_flops(model.config, latents)
    num_audio = math.prod(latents["audio"].shape[2:]) // math.prod(model.config.audio_patch)
    print(
        f"| {resolution} {seconds} s | {size.num_tokens} + {num_audio} | {label} | {joint:.2f} | "
        f"{work / joint / 1e12:.0f} | {work / joint / ceiling:.0%} | {peak / 2**30:.1f} | "
        f"{joint / alone - 1:+.1%} (published {PUBLISHED_JOINT_OVERHEAD:+.1%}) |",
        flush=True,
    )


@torch.inference_mode()
def denoise_seconds(
    model: JointDiT, noise: dict[str, torch.Tensor], size: ClipSize, args: argparse.Namespace
) -> tuple[float, float]:
    """Return the seconds of one guided generation after a warm-up of two steps, and the peak of allocated bytes."""
    config, device = model.config, args.device
    text = torch.randn(2, config.text_len, config.text_dim, device=device, dtype=torch.bfloat16)
    mask = torch.arange(config.text_len, device=device) < torch.tensor([[80], [120]], device=device)
    shape = (size.height, size.width, size.num_frames)
    grid = sampling_timesteps(args.num_inference_steps, *shape, INFERENCE_SHIFT_SCALE).tolist()
    seconds = 0.0
    for steps in (grid[:3], grid):
        latents = dict(noise)
        synchronize(device)
        reset_peak(device)
        started = time.perf_counter()
        for now, then in pairwise(steps):
            inputs = {name: latent.expand(2, *latent.shape[1:]) for name, latent in latents.items()}
            timestep = torch.full((2,), now, device=device)
            velocity = model(inputs["video"], inputs.get("audio"), timestep, text, mask)._asdict()
            latents = {name: euler_step(z, guide(velocity[name], 5.0), now, then) for name, z in latents.items()}
        synchronize(device)
        seconds = time.perf_counter() - started
    return seconds, torch.cuda.max_memory_allocated() if device == "cuda" else math.nan


def random_latents(config: JointDiTConfig, size: ClipSize, device: str) -> dict[str, torch.Tensor]:
    steps = training_mel_frames(size.num_frames / FPS) // LATENT_MEL_FRAMES
    shapes = {
        "video": (1, config.video_channels, *size.latent_size),
        "audio": (1, config.audio_channels, steps, LATENT_BANDS),
    }
    return {name: torch.randn(shape, device=device) for name, shape in shapes.items()}


def step_flops(config: JointDiTConfig, latents: dict[str, torch.Tensor]) -> float:
    """Return the floating-point operations of one guided evaluation, counted on the meta device."""
    model = JointDiT.on_meta(config)
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        inputs = [latent.expand(2, *latent.shape[1:]).to("meta") for latent in latents.values()]
        text, mask = torch.empty(2, config.text_len, config.text_dim), torch.ones(2, config.text_len)
        model(*inputs, torch.empty(2), text, mask)
    return counter.get_total_flops()


def matrix_rate(device: str) -> float:
    """Return the operations per second of a large bfloat16 matrix product on random data."""
    size = MATRIX_SIZE if device == "cuda" else 512
    first, second = torch.randn(2, size, size, device=device).to(torch.bfloat16).unbind()
    samples = []
    for _ in range(MATRIX_REPEATS):
        synchronize(device)
        started = time.perf_counter()
        first @ second
        synchronize(device)
        samples.append(time.perf_counter() - started)
    return 2 * size**3 / sorted(samples)[len(samples) // 2]


def device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else device


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def reset_peak(device: str) -> None:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


if __name__ == "__main__":
    main()
