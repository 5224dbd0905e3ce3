"""Measurements of rendered clips, in memory and from files, and of clips that are no Bounce clips."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from media import AVClip, convert_clip, read_clip, resample_audio, write_clip
from synthetic import HELD_OUT_SEED_START, measure_clip, render_clip, scene_from_seed
from synthetic.scene import FPS, PITCHES
from tests.golden_files import real_clips

CLASSES = ("color", "size", "background", "side", "pitch", "material")


def held_out(count, start=0):
    return [scene_from_seed(HELD_OUT_SEED_START + start + index) for index in range(count)]


def check(scenes, measurements, at_least=0.99):
    """Assert that classes, counts and impact times (within a frame) are right for `at_least` of the scenes."""
    pairs = list(zip(scenes, measurements, strict=True))
    for name in CLASSES:
        assert np.mean([getattr(scene, name) == getattr(found, name) for scene, found in pairs]) >= at_least, name
    for name in ("impacts_seen", "impacts_heard"):
        right = [within_a_frame(getattr(found, name), scene.impact_times) for scene, found in pairs]
        assert np.mean(right) >= at_least, name


def within_a_frame(found, true):
    return len(found) == len(true) and bool(np.all(np.abs(np.subtract(found, true)) <= 1 / FPS))


def test_clean_clips_are_measured_right():
    scenes = held_out(300)
    found = [measure_clip(render_clip(scene)) for scene in scenes]
    check(scenes, found)
    errors = np.concatenate([np.subtract(m.impacts_seen, s.impact_times) for s, m in zip(scenes, found, strict=True)])
    assert np.abs(errors).max() < 0.005  # far below a frame
    assert max(abs(m.pitch_deviation) for m in found) < 0.5
    for scene, m in zip(scenes, found, strict=True):
        x, y = scene.centres(np.arange(33) / FPS)
        assert m.track == pytest.approx(np.stack([x, y], 1), abs=0.1)
        assert m.impact_speeds == pytest.approx(scene.impact_speeds, rel=0.05, abs=3)
        assert m.radius == pytest.approx(scene.radius, rel=0.03)
        assert m.visibility == 1
        assert m.roughness < 0.05
        assert (m.stray, m.flicker, m.clipping) == (0, 0, 0)
        assert m.noise_floor < -60
        assert len(m.impact_speeds) == m.num_seen
        assert len(m.impact_levels) == len(m.impact_strengths) == m.num_heard


def test_clips_from_files_are_measured_right(tmp_path):
    scenes = held_out(40, start=5000)
    found = []
    for scene in scenes:
        path = tmp_path / f"{scene.seed}.mp4"
        write_clip(render_clip(scene), path, wav=False)  # H.264 and AAC, not the lossless wav
        found.append(measure_clip(read_clip(path)))
    check(scenes, found)
    assert max(m.flicker for m in found) < 1


def blur(video):
    return np.rint(gaussian_filter(video.astype(np.float32), (0.3, 1.3, 1.3, 0))).astype(np.uint8)


def test_a_blurred_clip_keeps_its_classes_and_loses_sharpness():
    scenes = held_out(20, start=6000)
    clean = [render_clip(scene) for scene in scenes]
    blurred = [AVClip(blur(clip.video), clip.fps, clip.audio, clip.sample_rate) for clip in clean]
    found = [measure_clip(clip) for clip in blurred]
    check(scenes, found)
    assert all(soft.sharpness < 0.5 * measure_clip(hard).sharpness for soft, hard in zip(found, clean, strict=True))


def test_size_rate_and_channels_of_the_clip_do_not_matter():
    scenes = held_out(12, start=7000)
    found = []
    for scene in scenes:
        clip = convert_clip(render_clip(scene), height=160, width=160)
        audio = np.repeat(resample_audio(clip.audio, 16000, 44100), 2, axis=0)
        found.append(measure_clip(AVClip(clip.video, clip.fps, audio, 44100)))
    check(scenes, found, at_least=1.0)


def test_noise_and_flicker_and_clipping_show():
    clip = render_clip(held_out(1)[0])
    rng = np.random.default_rng(0)
    video = np.clip(clip.video + rng.normal(0, 12, clip.video.shape), 0, 255).astype(np.uint8)
    audio = np.clip(3 * clip.audio + rng.normal(0, 0.02, clip.audio.shape), -1, 1).astype(np.float32)
    clean, bad = measure_clip(clip), measure_clip(AVClip(video, clip.fps, audio, clip.sample_rate))
    assert bad.flicker > clean.flicker + 5
    assert bad.noise_floor > clean.noise_floor + 20
    assert bad.clipping > clean.clipping
    assert (bad.color, bad.pitch, bad.num_seen) == (clean.color, clean.pitch, clean.num_seen)


def test_a_late_sound_is_heard_late():
    clip = render_clip(next(scene for scene in held_out(50) if scene.num_impacts == 1 and scene.impact_times[0] < 1.2))
    late = AVClip(clip.video, clip.fps, np.roll(clip.audio, 4000, axis=1), clip.sample_rate)
    assert measure_clip(late).impacts_heard[0] - measure_clip(clip).impacts_heard[0] == pytest.approx(0.25, abs=0.005)


@pytest.mark.parametrize("pitch", PITCHES)
def test_pitch_deviation_is_in_semitones(pitch):
    time = np.arange(16000) / 16000
    tone = 0.5 * np.sin(2 * np.pi * PITCHES[pitch] * 2 ** (1 / 12) * time) * np.exp(-time / 0.2)
    audio = np.concatenate([np.zeros(8000), tone]).astype(np.float32)[None]
    found = measure_clip(AVClip(np.zeros((2, 64, 64, 3), np.uint8), 16.0, audio, 16000))
    assert found.pitch == pitch
    assert found.pitch_deviation == pytest.approx(1, abs=0.1)
    assert found.impacts_heard == pytest.approx((0.5,), abs=0.01)


def picture(frames=33, height=64, width=64, value=40):
    return np.full((frames, height, width, 3), value, np.uint8)


def sound(kind, samples=33000):
    time = np.arange(samples)
    waves = {
        "silence": np.zeros(samples),
        "dither": 1e-4 * np.sin(time),
        "constant": np.full(samples, 0.5),
        "hum": 0.5 * np.sin(0.3 * time),
        "noise": np.clip(np.random.default_rng(0).normal(0, 0.2, samples), -1, 1),
        "square": np.sign(np.sin(0.05 * time)),
    }
    return waves[kind].astype(np.float32)[None]


@pytest.mark.parametrize("kind", ["silence", "dither", "constant", "hum", "noise", "square"])
def test_sounds_without_a_strike_have_no_impacts(kind):
    found = measure_clip(AVClip(picture(), 16.0, sound(kind), 16000))
    assert found.impacts_heard == ()
    assert found.pitch is found.material is found.pitch_deviation is None


def test_a_plain_picture_shows_no_ball():
    found = measure_clip(AVClip(picture(value=105), 16.0, sound("silence"), 16000))
    assert found.background == "gray"
    assert found.color is found.size is found.side is found.radius is None
    assert found.impacts_seen == ()
    assert found.visibility == 0
    assert np.isnan(found.track).all()
    assert found.noise_floor == -100


def test_a_still_ball_neither_drifts_nor_bounces():
    clip = render_clip(held_out(1)[0])
    found = measure_clip(AVClip(np.repeat(clip.video[:1], 33, axis=0), 16.0, clip.audio, 16000))
    assert found.color == held_out(1)[0].color
    assert found.side is None
    assert found.impacts_seen == ()


def test_a_ball_seen_in_few_frames_has_no_motion():
    video = render_clip(held_out(1)[0]).video.copy()
    video[5:] = video[0, 0, 0]
    found = measure_clip(AVClip(video, 16.0, sound("silence"), 16000))
    assert found.visibility == pytest.approx(5 / 33)
    assert found.drift is None
    assert found.impacts_seen == ()


@pytest.mark.parametrize("shape", [(1, 64, 64), (2, 64, 64), (3, 1, 1), (5, 2, 300), (4, 500, 3), (2, 129, 127)])
@pytest.mark.parametrize("num_samples", [0, 1, 2, 300, 600, 5000])
def test_degenerate_clips_are_measured_without_error(shape, num_samples):
    rng = np.random.default_rng(0)
    video = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    audio = rng.uniform(-1, 1, (1, num_samples)).astype(np.float32) if num_samples else np.zeros((0, 0), np.float32)
    for frames in (video, np.zeros_like(video)):
        found = measure_clip(AVClip(frames, 24.0, audio, 8000 if num_samples else 0))
        assert found.track.shape == (shape[0], 2)
        for value in (found.sharpness, found.flicker, found.noise_floor, found.roughness, found.tonality):
            assert np.isfinite(value)


@pytest.mark.parametrize("path", real_clips()[-2:], ids=lambda path: path.stem)  # one with sound, one without
def test_real_clips_are_measured_without_error(path):
    found = measure_clip(read_clip(path, height=256, width=256))
    assert found.flicker > 0
    assert found.sharpness > 0
