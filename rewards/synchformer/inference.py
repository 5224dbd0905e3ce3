"""Logits of many clips at once: segments of different clips share batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor

from core.devices import exact_convolutions
from media.clip import AVClip
from rewards.synchformer.config import SynchformerConfig
from rewards.synchformer.frontends import (
    cut_frames,
    mel_segments,
    normalise_frames,
    prepare_frames,
    prepare_waveform,
)
from rewards.synchformer.network import Synchformer
from rewards.synchformer.windows import window_indices

VIDEO_SEGMENTS_PER_FORWARD = 16  # 25,000 tokens at full size: enough to fill a GPU, and 1 GB in float32
AUDIO_SEGMENTS_PER_FORWARD = 128
WINDOWS_PER_FORWARD = 64


@torch.inference_mode()
@exact_convolutions()
def window_logits(network: Synchformer, clips: Sequence[AVClip], num_segments: Sequence[int]) -> list[Tensor]:
    """Logits of the windows of each clip, float32 (W, num_offsets) on the CPU.

    Args:
        clips: all with sound.
        num_segments: how many segments to look at in each clip; it is cut, or padded with black frames and silence.
    """
    if not clips:
        return []
    config = network.config
    device, dtype = network.vproj.weight.device, network.vproj.weight.dtype
    visual = torch.cat(
        [
            network.encode_video(normalise_frames(frames.to(device)).to(dtype))
            for frames in _video_batches(clips, num_segments, config)
        ]
    )  # (sum of segments, tubes, width)
    audio = torch.cat(
        [network.encode_audio(mel.to(device, dtype)) for mel in _audio_batches(clips, num_segments, config)]
    )  # (sum of segments, audio_steps, width)
    windows, first = [], 0
    for count in num_segments:
        windows.append(first + window_indices(count, config.num_segments))
        first += count
    logits = [
        network.fuse(visual[indices], audio[indices])
        for indices in torch.cat(windows).to(device).split(WINDOWS_PER_FORWARD)
    ]
    return [*torch.cat(logits).float().cpu().split([len(indices) for indices in windows])]


def _video_batches(clips: Sequence[AVClip], num_segments: Sequence[int], config: SynchformerConfig) -> Iterator[Tensor]:
    """Byte batches of segments (N, frames_per_segment, 3, H, W); each clip is prepared when it is needed."""
    segments = (
        segment
        for clip, count in zip(clips, num_segments, strict=True)
        for segment in cut_frames(prepare_frames(clip, config.frames_of(count), config), config)
    )
    while batch := [*islice(segments, VIDEO_SEGMENTS_PER_FORWARD)]:
        yield torch.stack(batch)


def _audio_batches(clips: Sequence[AVClip], num_segments: Sequence[int], config: SynchformerConfig) -> Iterator[Tensor]:
    """Float32 batches of segments (N, 1, num_mels, mel_frames)."""
    segments = (
        segment
        for clip, count in zip(clips, num_segments, strict=True)
        for segment in mel_segments(prepare_waveform(clip, config.samples_of(count), config), config)
    )
    while batch := [*islice(segments, AUDIO_SEGMENTS_PER_FORWARD)]:
        yield torch.stack(batch)
