from __future__ import annotations

import numpy as np
import pytest

from synthetic.corrupt import MOTION, PICTURE, SOUND, corrupt, shift_sound
from synthetic.measure import measure_clip
from synthetic.render import render_clip
from synthetic.scene import scene_from_seed


@pytest.fixture(scope="module")
def clip():
    return render_clip(next(scene for seed in range(99) if (scene := scene_from_seed(seed)).num_impacts == 3))


@pytest.fixture(scope="module")
def clean(clip):
    return measure_clip(clip)


def test_every_kind_is_found_by_the_measurement_it_speaks_of(clip, clean):
    rng = np.random.default_rng(0)
    found = {kind: measure_clip(apply(clip, 1.0, rng)) for kind, apply in (PICTURE | MOTION | SOUND).items()}
    assert found["blur"].sharpness < 0.5 * clean.sharpness
    assert found["pixel_noise"].flicker > clean.flicker + 5
    assert found["flicker"].flicker > clean.flicker + 5
    assert found["freeze"].roughness > 5 * clean.roughness
    assert found["judder"].roughness > 5 * clean.roughness
    assert found["shake"].roughness > 5 * clean.roughness
    assert found["hiss"].noise_floor > clean.noise_floor + 20
    assert found["clipping"].clipping > clean.clipping + 0.05
    assert found["muffle"].peak < 0.5 * clean.peak
    assert found["dropouts"].tonality < clean.tonality


@pytest.mark.parametrize("seconds", [0.4, -0.2])
def test_shifted_sound_is_heard_as_much_later(clip, clean, seconds):
    shifted = measure_clip(shift_sound(clip, seconds))
    expected = [time + seconds for time in clean.impacts_heard if 0.02 < time + seconds < clip.duration_s - 0.05]
    assert shifted.impacts_heard == pytest.approx(expected, abs=0.02)


def test_the_same_generator_gives_the_same_corruption(clip):
    first, second = (corrupt(clip, PICTURE | SOUND, np.random.default_rng(4)) for _ in range(2))
    assert first[1:] == second[1:]
    assert np.array_equal(first[0].video, second[0].video)
    assert np.array_equal(first[0].audio, second[0].audio)


def test_stronger_is_further_from_the_clean_clip(clip):
    for kind, apply in (PICTURE | SOUND).items():
        weak, strong = (apply(clip, strength, np.random.default_rng(1)) for strength in (0.3, 1.0))
        distance = [
            np.abs(one.video.astype(float) - clip.video).mean() + 255 * np.abs(one.audio - clip.audio).mean()
            for one in (weak, strong)
        ]
        assert distance[0] < distance[1], kind
