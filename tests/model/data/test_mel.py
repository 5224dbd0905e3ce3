"""The log-mel front end is the published one, and its inverse is close."""

from __future__ import annotations

import math

import torch

from media.mel import invert_log_mel, log_mel, normalize_waveform
from model.javisdit.codecs.audio_lengths import training_mel_frames
from tests.model.javisdit.golden import Golden

GOLDEN = "media/audio_mel.safetensors"


def test_log_mel_equals_the_published_one():
    golden = Golden(GOLDEN)
    cases = [(index, case) for index, case in enumerate(golden.metadata["cases"]) if f"case{index}.mel" in golden.names]
    assert cases
    for index, case in cases:
        num_frames = training_mel_frames(case["duration_s"])
        assert num_frames == case["mel"][1]
        mel = log_mel(normalize_waveform(golden[f"case{index}.waveform"][None]), num_frames)
        assert_published(mel, golden[f"case{index}.mel"])


def test_of_two_channels_the_release_hears_the_first():
    golden = Golden(GOLDEN)
    expected = golden["two_channel.mel"]
    mel = log_mel(normalize_waveform(golden["two_channel.waveform"][:1]), expected.shape[1])
    assert_published(mel, expected)


def assert_published(mel, expected):
    """Equal within the golden tolerances: wider near the floor, where the logarithm magnifies rounding."""
    error = (mel - expected).abs()
    assert error.max() <= 5e-3
    assert error.mean() <= 2e-4
    loud = expected > math.log(1e-3)
    assert not loud.any() or error[loud].max() <= 3e-4


def test_inversion_keeps_the_pitch():
    time = torch.arange(33_000) / 16_000
    tone = 0.4 * torch.sin(2 * math.pi * 900 * time)[None]
    waveform = invert_log_mel(log_mel(tone, 208, pad_value=-11.5), 33_000)
    assert waveform.shape == (1, 33_000)
    spectrum = torch.fft.rfft(waveform[0]).abs()
    peak_hz = spectrum.argmax().item() / 33_000 * 16_000
    assert abs(peak_hz - 900) < 45  # a mel band is 46 Hz wide here
