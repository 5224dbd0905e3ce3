"""Where each token sits: 3-D position ids of video and audio tokens, and the rotary tables made from them.

Ids are in patch-grid units, (time, height, width) per token. TA-RoPE (paper section 3.3; `interleave_offset` in the
release) puts audio on the video timeline and shifts its other two ids past the video's, so that no two tokens collide.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, get_args

import torch
from torch import Tensor

AudioPositionRule = Literal["ta_rope", "ta_rope_floor", "vanilla", "interpolate", "interleave"]
AUDIO_POSITION_RULES: tuple[str, ...] = get_args(AudioPositionRule)

VideoGrid = tuple[int, int, int]  # (time, height, width) in patches
AudioGrid = tuple[int, int]  # (time, mel) in patches

ROPE_THETA = 10_000.0
CPU = torch.device("cpu")


def video_position_ids(grid: VideoGrid) -> Tensor:
    """Ids of the video tokens, float64 (T*H*W, 3), in raster order."""
    axes = [torch.arange(size, dtype=torch.float64) for size in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)


def audio_position_ids(rule: str, video_grid: VideoGrid, audio_grid: AudioGrid) -> Tensor:
    """Ids of the audio tokens, float64 (Ta*M, 3), time-major.

    Rules, with t the audio patch index, Tv and Ta the two lengths:
        ta_rope: time ceil(t(Tv-1)/(Ta-1)), height H + t, width W + m (the release's `interleave_offset`);
        ta_rope_floor: the paper's formula floor(t Tv/Ta) for time, otherwise as ta_rope;
        interleave: as ta_rope without the offsets;
        interpolate: t(Tv-1)/(Ta-1), fractional, for both time and height;
        vanilla: t for both, as if audio were a video of its own.

    Raises:
        ValueError: for an unknown rule.
    """
    if rule not in AUDIO_POSITION_RULES:
        raise ValueError(f"Unknown audio position rule {rule!r}. Choose one of {', '.join(AUDIO_POSITION_RULES)}.")
    video_length, height, width = video_grid
    audio_length, mel = audio_grid
    index = torch.arange(audio_length, dtype=torch.float64)
    # Not index * (Tv - 1) / (Ta - 1): for some lengths linspace lands a rounding error above a whole number, and the
    # release's ceil then gives the next one.
    stretched = torch.linspace(0, video_length - 1, audio_length, dtype=torch.float64)
    time = {
        "ta_rope": stretched.ceil(),
        "ta_rope_floor": torch.arange(audio_length) * video_length // audio_length,
        "interleave": stretched.ceil(),
        "interpolate": stretched,
        "vanilla": index,
    }[rule]
    offset = (height, width) if rule.startswith("ta_rope") else (0, 0)
    rows = stretched if rule == "interpolate" else index + offset[0]
    ids = torch.empty(audio_length, mel, 3, dtype=torch.float64)
    ids[..., 0] = time[:, None]
    ids[..., 1] = rows[:, None]
    ids[..., 2] = torch.arange(mel, dtype=torch.float64) + offset[1]
    return ids.reshape(-1, 3)


@lru_cache(maxsize=8)  # 17 MiB each, on the device, at 480p and 5 s
@torch.inference_mode(False)  # a table first asked for while generating must serve training too
def rotary_table(
    rule: str,
    video_grid: VideoGrid | None,
    audio_grid: AudioGrid | None,
    timeline: VideoGrid,
    head_dim: int,
    device: torch.device = CPU,
) -> tuple[Tensor, Tensor]:
    """Cosines and sines for the tokens that are present, video first: two float32 tensors (N, head_dim // 2).

    `timeline` is the video grid that audio ids refer to; it is given even when no video tokens are present.
    Angles are computed in float64, as published, and rounded once.
    """
    parts = [video_position_ids(video_grid)] if video_grid else []
    if audio_grid:
        parts.append(audio_position_ids(rule, timeline, audio_grid))
    angles = _rotary_angles(torch.cat(parts), head_dim)
    return angles.cos().float().to(device), angles.sin().float().to(device)


def _rotary_angles(ids: Tensor, head_dim: int) -> Tensor:
    """(N, 3) ids -> (N, head_dim // 2) angles; time gets what a third split leaves over (Wan2.1's split)."""
    third = head_dim // 6
    sizes = (head_dim // 2 - 2 * third, third, third)
    angles = []
    for axis, size in enumerate(sizes):
        frequencies = ROPE_THETA ** (-torch.arange(size, dtype=torch.float64) / size)
        angles.append(ids[:, axis, None] * frequencies)
    return torch.cat(angles, dim=-1)
