"""Positions of tokens: 3-D position ids of video and audio tokens, and the rotary tables computed from them.

Ids are in patch-grid units, (time, height, width) per token. TA-RoPE (paper section 3.3; `interleave_offset` in the
release) places audio on the video timeline and shifts its height and width ids past the video's, so that no two tokens
have the same position.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from model.javisdit.network.config import AUDIO_POSITION_RULES

VideoGrid = tuple[int, int, int]  # (time, height, width) in patches
AudioGrid = tuple[int, int]  # (time, mel) in patches

ROPE_THETA = 10_000.0
CPU = torch.device("cpu")


def video_position_ids(grid: VideoGrid) -> Tensor:
    """Return the position ids of the video tokens.

    Args:
        grid: (T, H, W) in patches.

    Returns:
        float64 (T*H*W, 3): time, height and width of each token, in raster order.
    """
    axes = [torch.arange(size, dtype=torch.float64) for size in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)


def audio_position_ids(rule: str, video_grid: VideoGrid, audio_grid: AudioGrid) -> Tensor:
    """Return the ids of the audio tokens, float64 (Ta*M, 3), time-major.

    Rules, with t and m the audio patch indices along time and mel, Tv and Ta the lengths of video and audio:
        ta_rope: time ceil(t(Tv-1)/(Ta-1)), height H + t, width W + m (the release's `interleave_offset`);
        ta_rope_floor: the paper's formula floor(t Tv/Ta) for time, otherwise like ta_rope;
        interleave: like ta_rope without the offsets H and W;
        interpolate: t(Tv-1)/(Ta-1), fractional, for both time and height;
        vanilla: t for both time and height, as for a separate video.

    Raises:
        ValueError: for an unknown rule.
    """
    if rule not in AUDIO_POSITION_RULES:
        raise ValueError(f"There is no audio position rule {rule!r}: choose one of {', '.join(AUDIO_POSITION_RULES)}.")
    video_length, height, width = video_grid
    audio_length, mel = audio_grid
    index = torch.arange(audio_length, dtype=torch.float64)
    # Not index * (Tv - 1) / (Ta - 1): for some lengths linspace exceeds a whole number by a rounding error, and the
    # release's ceil then gives the next number.
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


@lru_cache(maxsize=8)  # a table takes 17 MiB on the device at 480p and 5 s
@torch.inference_mode(False)  # a table first computed during generation must be usable in training too
def rotary_table(
    rule: str,
    video_grid: VideoGrid | None,
    audio_grid: AudioGrid | None,
    timeline: VideoGrid,
    head_dim: int,
    device: torch.device = CPU,
) -> tuple[Tensor, Tensor]:
    """Return cosines and sines for the tokens that are present, video first: two float32 tensors (N, head_dim // 2).

    Angles are computed in float64, as published, and rounded once.

    Args:
        rule: audio position rule, see `audio_position_ids`.
        video_grid, audio_grid: grids of the tokens; None for an absent modality.
        timeline: video grid to which the audio ids refer; required even without video tokens.
        head_dim: channels per attention head.
        device: device of the result.
    """
    parts = [video_position_ids(video_grid)] if video_grid else []
    if audio_grid:
        parts.append(audio_position_ids(rule, timeline, audio_grid))
    angles = _rotary_angles(torch.cat(parts), head_dim)
    return angles.cos().float().to(device), angles.sin().float().to(device)


def _rotary_angles(ids: Tensor, head_dim: int) -> Tensor:
    """Return the angles (N, head_dim // 2) of ids (N, 3), split as in Wan2.1.

    Height and width get head_dim // 6 frequencies each, time gets the rest.
    """
    third = head_dim // 6
    sizes = (head_dim // 2 - 2 * third, third, third)
    angles = []
    for axis, size in enumerate(sizes):
        frequencies = ROPE_THETA ** (-torch.arange(size, dtype=torch.float64) / size)
        angles.append(ids[:, axis, None] * frequencies)
    return torch.cat(angles, dim=-1)
