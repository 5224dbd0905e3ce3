"""Length of the mel spectrogram of a clip's sound, by the release's two rules, which disagree.

Training rounds up to a multiple of 8 frames, sampling to a multiple of 32: 208 and 224 frames for 33 video frames.
Audio positions are stretched over the duration of the video, so the sampling rule gives tokens positions that never
occur in training. Source: docs/upstream/autoencoders_text.md, section 3.
"""

from __future__ import annotations

from typing import Literal, get_args

from media.mel import HOP_LENGTH, SAMPLE_RATE
from model.javisdit.network.sizes import round_up

LengthRule = Literal["training", "sampling"]
TRAINING_MULTIPLE = 8
SAMPLING_MULTIPLE = 32
HOP_SECONDS = 0.01


def num_mel_frames(num_samples: int, rule: LengthRule = "training") -> int:
    """Return the number of mel frames for `num_samples` samples at 16 kHz.

    Raises:
        ValueError: for an unknown rule.
    """
    if rule not in get_args(LengthRule):
        raise ValueError(f"There is no length rule {rule!r}: choose one of {', '.join(get_args(LengthRule))}.")
    seconds = num_samples / SAMPLE_RATE
    return training_mel_frames(seconds) if rule == "training" else sampling_mel_frames(seconds)


def training_mel_frames(seconds: float) -> int:
    """Return the number of mel frames that the release's training computes for a duration."""
    return round_up(int(seconds * SAMPLE_RATE / HOP_LENGTH), TRAINING_MULTIPLE)


def sampling_mel_frames(seconds: float) -> int:
    """Return the number of mel frames that the release's sampling computes for a duration."""
    return round_up(int(seconds / HOP_SECONDS), SAMPLING_MULTIPLE)


def sampling_num_samples(seconds: float) -> int:
    """Return the number of samples to which the release cuts a generated waveform, rounded down."""
    return int(seconds * SAMPLE_RATE)
