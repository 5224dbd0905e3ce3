"""Counter-metrics of clips read from files: each change of a clip moves what it should, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from evaluation.counters import COUNTERS, measure_counters
from evaluation.counters.clip import signed_offset
from evaluation.counters.names import DIVERSITY, OF_A_CLIP
from evaluation.counters.picture import measure_picture
from media import AVClip, convert_clip, read_clip, write_clip
from synthetic import HELD_OUT_SEED_START, render_clip, scene_from_seed
from synthetic.corrupt import freeze, hiss, shift_sound
from tests.evaluation.counters.sampled_runs import darker, louder

SCENE = scene_from_seed(3)
RNG = np.random.default_rng(0)


def written(clip: AVClip, folder: Path) -> dict[str, float]:
    """Return the values of a clip after it was written to mp4 and wav and read again."""
    write_clip(clip, folder / "clip.mp4")
    wav = folder / "clip.wav"
    read = read_clip(folder / "clip.mp4", audio_path=wav if clip.has_audio else None)
    return measure_counters(read).values


def moved(before: dict[str, float], after: dict[str, float], tolerance: float = 0.02) -> set[str]:
    """Return the names whose values differ by more than a share of the value."""
    return {
        name
        for name in before
        if abs(after[name] - before[name]) > tolerance * max(abs(before[name]), abs(after[name]), 1e-9)
    }


def test_every_name_has_a_value_or_is_a_diversity():
    assert [counter.name for counter in COUNTERS] == [*OF_A_CLIP, *DIVERSITY]
    values = measure_counters(render_clip(SCENE)).values
    assert list(values) == list(OF_A_CLIP)
    assert {name for name, value in values.items() if np.isnan(value)} == {"video_latent_norm", "audio_latent_norm"}


def test_a_louder_clip_moves_loudness_only(tmp_path):
    before, after = (written(clip, tmp_path) for clip in (render_clip(SCENE), louder(render_clip(SCENE))))
    assert after["loudness"] - before["loudness"] == pytest.approx(20 * np.log10(1.25), abs=0.05)
    assert moved(before, after) == {"loudness"}


def test_a_brighter_clip_moves_brightness_only(tmp_path):
    before, after = (written(clip, tmp_path) for clip in (darker(render_clip(SCENE)), render_clip(SCENE)))
    assert after["brightness"] / before["brightness"] == pytest.approx(1 / 0.7, rel=0.02)
    assert moved(before, after, tolerance=0.05) == {"brightness"}


def test_grey_has_no_saturation_and_paint_has_all():
    clip = render_clip(SCENE)
    grey = replace(clip, video=np.repeat(clip.video.mean(axis=-1, keepdims=True).astype(np.uint8), 3, axis=-1))
    red = replace(clip, video=clip.video * np.array([1, 0, 0], np.uint8))
    assert measure_counters(grey).values["saturation"] == 0.0
    assert measure_counters(red).values["saturation"] == pytest.approx(1.0)


@pytest.mark.parametrize("seconds", [0.2, -0.15])
def test_shifted_sound_moves_the_offset_by_the_shift_with_its_sign(seconds, tmp_path):
    scenes = [scene for seed in range(40) if _is_inside(scene := scene_from_seed(seed), seconds)][:5]
    assert len(scenes) == 5
    pairs = [
        (written(clip, tmp_path), written(shift_sound(clip, seconds), tmp_path)) for clip in map(render_clip, scenes)
    ]
    shifts = [after["av_offset"] - before["av_offset"] for before, after in pairs]
    assert np.median(shifts) == pytest.approx(seconds, abs=0.01)
    assert np.median([before["av_offset"] for before, _ in pairs]) == pytest.approx(0.0, abs=0.02)
    assert moved(*pairs[0]) <= {"av_offset", "silence", "loudness"}  # sound is cut off at one end


def _is_inside(scene, seconds):
    return all(0.1 < time + seconds < 1.95 for time in scene.impact_times)


def test_positive_offsets_are_late_sound():
    assert signed_offset((0.5, 1.0), (0.6, 1.1)) == pytest.approx(0.1)
    assert signed_offset((0.5, 1.0), (0.45, 0.95)) == pytest.approx(-0.05)
    assert np.isnan(signed_offset((), (0.6,)))


def test_onsets_heard_and_seen_are_the_impacts():
    scenes = [scene_from_seed(HELD_OUT_SEED_START + seed) for seed in range(40)]
    values = [measure_counters(render_clip(scene)).values for scene in scenes]
    heard = [found["onsets_heard"] == len(scene.impact_times) for found, scene in zip(values, scenes, strict=True)]
    assert np.mean(heard) >= 0.97
    assert np.mean([found["onsets_unseen"] == 0 for found in values]) >= 0.97
    assert np.nanmax(np.abs([found["av_offset"] for found in values])) < 0.02


def test_without_a_plain_background_onsets_seen_are_changes_of_movement():
    """A textured picture, which moves down and up again as the ball does, and flashes nowhere."""
    texture = np.kron(np.random.default_rng(0).integers(40, 216, (16, 16, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    turns = (0.5, 1.0, 1.5)  # seconds at which the direction changes; 16 frames a second, 2 pixels a frame
    steps = np.concatenate([[2 * (-1) ** sum(frame / 16 >= turn for turn in turns) for frame in range(32)]])
    rows = 32 + np.concatenate([[0], np.cumsum(steps)])
    video = np.stack([texture[row : row + 64, 32:96] for row in rows])
    found = measure_picture(video, 16.0).onsets
    assert len(found) == len(turns)
    assert np.abs(np.subtract(found, turns)).max() <= 1 / 16
    assert measure_picture(np.repeat(video[:1], 33, axis=0), 16.0).onsets == ()


def test_extra_strikes_are_heard_but_not_seen():
    clip = render_clip(SCENE)
    strikes = [round((time + 0.25) * clip.sample_rate) for time in SCENE.impact_times]
    audio = clip.audio.copy()
    for start in strikes:
        piece = clip.audio[:, strikes[0] - round(0.25 * clip.sample_rate) :][:, :1600]
        audio[:, start : start + piece.shape[1]] += piece[:, : audio.shape[1] - start]
    before, after = (measure_counters(one).values for one in (clip, replace(clip, audio=np.clip(audio, -1, 1))))
    extra = after["onsets_heard"] - before["onsets_heard"]
    assert extra >= 1
    assert after["onsets_unseen"] - before["onsets_unseen"] == extra


def test_a_frozen_picture_moves_less():
    clip = render_clip(SCENE)
    still = replace(clip, video=np.repeat(clip.video[:1], clip.num_frames, axis=0))
    values = [measure_counters(one).values["motion"] for one in (clip, freeze(clip, 1.0, RNG), still)]
    assert values[0] > values[1] > values[2] == 0.0


def test_slow_motion_halves_the_speed():
    clip = render_clip(SCENE)
    slow = AVClip(clip.video, clip.fps / 2, clip.audio, clip.sample_rate)
    assert measure_counters(slow).values["motion"] == pytest.approx(measure_counters(clip).values["motion"] / 2)


def test_silence_clipping_and_noise():
    clip = render_clip(SCENE)
    half = clip.audio.copy()
    half[:, half.shape[1] // 2 :] = 0
    silent = measure_counters(replace(clip, audio=np.zeros_like(clip.audio))).values
    assert (silent["loudness"], silent["silence"], silent["onsets_heard"]) == (-70.0, 1.0, 0.0)
    assert measure_counters(replace(clip, audio=half)).values["silence"] >= 0.5
    assert measure_counters(hiss(clip, 1.0, RNG)).values["silence"] == 0.0
    square = np.sign(np.sin(np.linspace(0, 4000, clip.num_samples)))[None].astype(np.float32)
    assert measure_counters(replace(clip, audio=square)).values["clipping"] == pytest.approx(1.0, abs=0.01)


def test_a_clip_without_a_sound_track_has_no_sound_values(tmp_path):
    clip = render_clip(SCENE)
    values = written(replace(clip, audio=np.zeros((0, 0), np.float32), sample_rate=0), tmp_path)
    undefined = {name for name, value in values.items() if np.isnan(value)}
    assert undefined == set(OF_A_CLIP) - {"motion", "brightness", "saturation"}


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 64, 64), (3, 5, 7), (40, 240, 432)])
def test_any_picture_gives_numbers(shape):
    video = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    found = measure_counters(AVClip(video, 24.0, np.zeros((2, 100), np.float32), 44100))
    assert np.isnan(found.values["motion"]) == (shape[0] == 1)
    assert found.values["brightness"] >= 0
    assert found.picture.shape == (3, 8, 8, 8)


def test_values_do_not_depend_on_the_size_of_the_picture():
    clip = render_clip(SCENE)
    small, large = (measure_counters(one).values for one in (clip, convert_clip(clip, height=192, width=192)))
    assert small["motion"] == pytest.approx(large["motion"], rel=0.1)
    assert moved(small, large, tolerance=0.1) == set()


def test_latent_norms_are_root_mean_squares(tmp_path):
    tensors = {"video": np.full((4, 3, 2, 2), 2.0, np.float32), "audio": np.array([3.0, -4.0], np.float32)}
    save_file(tensors, tmp_path / "latents.safetensors")
    values = measure_counters(render_clip(SCENE), tmp_path / "latents.safetensors").values
    assert values["video_latent_norm"] == 2.0
    assert values["audio_latent_norm"] == pytest.approx(np.sqrt(12.5))
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"broken\.safetensors holds no latents"):
        measure_counters(render_clip(SCENE), tmp_path / "broken.safetensors")
