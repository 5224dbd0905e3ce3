"""Onsets of sounds that are known, and the likeness of a sound to itself some time later."""

from __future__ import annotations

import numpy as np
import pytest

from media.onsets import Onsets, find_onsets
from synthetic import render_audio, scene_from_seed
from synthetic.scene import SAMPLE_RATE

TIMES = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE


def tone(hz=440.0):
    return np.sin(2 * np.pi * hz * TIMES)


def onsets_at(*times):
    return Onsets(np.array(times), np.ones(len(times)))


@pytest.mark.parametrize("seed", range(20))
def test_strikes_are_found_at_their_times(seed):
    scene = scene_from_seed(seed)
    found = find_onsets(render_audio(scene), SAMPLE_RATE)
    assert len(found) == scene.num_impacts
    assert np.abs(found.times - scene.impact_times).max() < 0.02


def test_scale_rate_and_channels_do_not_matter():
    sound = render_audio(scene_from_seed(1))
    found = find_onsets(sound, SAMPLE_RATE)
    for other, rate in (
        (0.1 * sound, SAMPLE_RATE),
        (np.repeat(sound, 3, axis=1), 48_000),
        (sound[[0, 0]], SAMPLE_RATE),
    ):
        assert np.abs(find_onsets(other, rate).times - found.times).max() <= 0.01


@pytest.mark.parametrize(
    "sound",
    [
        np.zeros_like(TIMES),
        0.3 * tone(),
        0.2 * tone(440) + 0.2 * tone(443),
        0.3 * tone() * (1 + 0.5 * np.sin(2 * np.pi * 4 * TIMES)),
        0.1 * np.random.default_rng(0).normal(size=len(TIMES)),
        sum(0.05 * tone(50 * n) for n in range(1, 10)),
    ],
    ids=["silence", "tone", "beating tones", "tremolo", "noise", "hum"],
)
def test_steady_sounds_have_no_onset(sound):
    assert len(find_onsets(sound.astype(np.float32)[None], SAMPLE_RATE)) == 0


def test_likeness_is_one_at_lag_zero_and_at_the_period_of_a_beat():
    beat = onsets_at(0.2, 0.6, 1.0, 1.4)
    assert beat.likeness(0.0, 2.0) == pytest.approx(1.0)
    for shift in (0.4, -0.4, 0.8):
        assert beat.likeness(shift, 1.6) == pytest.approx(1.0)
    for shift in (0.2, -0.3, 0.5):
        assert beat.likeness(shift, 2.0) < 0.01
    assert onsets_at(0.5, 1.2, 1.5).likeness(0.7, 2.0) == pytest.approx(0.5)  # one of two kept onsets falls on another


def test_likeness_to_nothing_is_zero():
    assert onsets_at(1.9).likeness(0.5, 2.0) == 0.0
    assert onsets_at().likeness(0.5, 2.0) == 0.0
