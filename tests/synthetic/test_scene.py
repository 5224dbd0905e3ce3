"""The Bounce world: scenes are deterministic, balanced and clear, and renderings match their descriptions."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, pairwise, product
from math import dist

import numpy as np
import pytest

from synthetic import HELD_OUT_SEED_START, render_audio, render_clip, render_video, scene_from_seed
from synthetic.render import strike_level
from synthetic.scene import (
    BACKGROUNDS,
    COLORS,
    DURATION_S,
    FLOOR_Y,
    FPS,
    MATERIALS,
    MAX_IMPACTS,
    NUM_FRAMES,
    PITCHES,
    SIDES,
    SIZES,
)

SCENES = [scene_from_seed(seed) for seed in range(800)]


def test_a_seed_is_a_scene():
    assert scene_from_seed(7) == scene_from_seed(7)
    assert scene_from_seed(7) != scene_from_seed(8)
    assert scene_from_seed(HELD_OUT_SEED_START).seed == HELD_OUT_SEED_START
    with pytest.raises(ValueError, match="-1 is negative"):
        scene_from_seed(-1)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("color", COLORS),
        ("size", SIZES),
        ("background", BACKGROUNDS),
        ("pitch", PITCHES),
        ("material", MATERIALS),
        ("side", SIDES),
        ("num_impacts", range(1, MAX_IMPACTS + 1)),
    ],
)
def test_every_value_is_about_equally_frequent(name, values):
    counts = Counter(getattr(scene, name) for scene in SCENES)
    assert counts.keys() == set(values)
    assert min(counts.values()) > 0.6 * len(SCENES) / len(values)


def test_impacts_are_apart_and_away_from_the_ends():
    for scene in SCENES:
        times = scene.impact_times
        assert times[0] >= 0.2
        assert times[-1] <= 1.85
        assert all(later - earlier >= 0.25 for earlier, later in pairwise(times))
        assert list(scene.impact_speeds) == sorted(scene.impact_speeds, reverse=True)


def test_the_ball_touches_the_floor_at_impacts_only_and_stays_in_the_frame():
    times = np.linspace(0, DURATION_S, 2000)
    for scene in SCENES[:200]:
        assert scene.heights(np.array(scene.impact_times)) == pytest.approx(0, abs=1e-6)
        x, y = scene.centres(times)
        assert (y <= FLOOR_Y - scene.radius + 1e-6).all()
        assert (y >= scene.radius).all()
        assert (x - scene.radius >= 2).all()
        assert (x + scene.radius <= 62).all()
        assert np.sign(x[-1] - x[0]) == (1 if scene.side == "right" else -1)


def test_colors_are_far_apart():
    assert min(dist(a, b) for a, b in combinations(COLORS.values(), 2)) > 100
    assert min(dist(a, b) for a, b in product(COLORS.values(), BACKGROUNDS.values())) > 100
    assert min(dist(a, b) for a, b in combinations(BACKGROUNDS.values(), 2)) > 80


def test_rendering_is_deterministic_and_of_the_stated_shape():
    for scene in SCENES[:20]:
        first, second = render_clip(scene), render_clip(scene)
        assert first.video.shape == (33, 64, 64, 3)
        assert first.audio.shape == (1, 33000)
        assert (first.fps, first.sample_rate) == (16.0, 16000)
        assert np.array_equal(first.video, second.video)
        assert np.array_equal(first.audio, second.audio)


def test_the_disc_has_the_scene_s_area_and_soft_edges():
    scene = SCENES[0]
    background, ball = np.array(BACKGROUNDS[scene.background]), np.array(COLORS[scene.color])
    axis = ball - background
    share = (render_video(scene) - background) @ axis / (axis @ axis)
    assert share.sum((1, 2)) == pytest.approx(np.full(NUM_FRAMES, np.pi * scene.radius**2), rel=0.02)
    assert ((share > 0.1) & (share < 0.9)).sum() > NUM_FRAMES * scene.radius  # a ring of mixed pixels in each frame


def test_strikes_start_at_impacts_and_grow_with_speed():
    for scene in SCENES[:100]:
        audio = render_audio(scene)[0]
        assert np.abs(audio).max() < 0.95
        assert np.abs(audio[: round(scene.impact_times[0] * 16000)]).max() < 1e-4  # only dither before the first impact
        first = round(scene.impact_times[0] * 16000)
        assert np.abs(audio[first : first + 400]).max() == pytest.approx(strike_level(scene.impact_speeds[0]), rel=0.15)
    assert strike_level(50) < strike_level(150) < strike_level(299)


def test_frames_show_the_instant_they_start_at():
    scene = next(scene for scene in SCENES if scene.material == "bell")
    x, y = scene.centres(np.arange(NUM_FRAMES) / FPS)
    frame = render_video(scene)[10].astype(float)
    weight = np.abs(frame - np.array(BACKGROUNDS[scene.background])).sum(-1)
    rows, columns = np.mgrid[:64, :64] + 0.5
    assert (weight * columns).sum() / weight.sum() == pytest.approx(x[10], abs=0.05)
    assert (weight * rows).sum() / weight.sum() == pytest.approx(y[10], abs=0.05)
