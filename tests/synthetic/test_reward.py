"""The verifiable rewards separate clean Bounce clips from corrupted ones, each in the expected columns."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import ndimage

from media import AVClip, read_clip, write_clip
from rewards import (
    HIGHER_IS_BETTER,
    METRIC_COLUMNS,
    MODALITY_METRICS,
    ClipFile,
    Prompt,
    RewardSuite,
    get_reward,
)
from synthetic.captions import caption
from synthetic.render import render_clip
from synthetic.scene import COLORS, PITCHES, scene_from_seed
from tests.golden_files import real_clips

SEEDS = range(2_000_000, 2_000_040)
SCENES = [scene_from_seed(seed) for seed in SEEDS]
PROMPTS = [Prompt(f"p{scene.seed}", caption(scene)) for scene in SCENES]
REWARD = get_reward("verifiable").load()

VIDEO_COLUMNS = ("visual_quality", "motion_quality", "text_alignment", "ib_tv")
AUDIO_COLUMNS = (
    "audio_quality",
    "content_enjoyment",
    "content_usefulness",
    "production_complexity",
    "production_quality",
    "ib_ta",
)


@pytest.fixture(scope="module")
def clips():
    return [render_clip(scene) for scene in SCENES]


@pytest.fixture(scope="module")
def clean(clips):
    return score(clips)


def score(clips, prompts=PROMPTS):
    return {column: values.numpy() for column, values in REWARD.score(clips, prompts).items()}


def edit(clips, video=None, audio=None):
    """Return clips with a function of (array, generator) applied to their picture or sound."""
    edited = []
    for seed, clip in enumerate(clips):
        rng = np.random.default_rng(seed)
        frames = clip.video if video is None else np.clip(np.rint(video(clip.video.astype(float), rng)), 0, 255)
        sound = clip.audio if audio is None else np.clip(audio(clip.audio, rng), -1, 1)
        edited.append(dataclasses.replace(clip, video=frames.astype(np.uint8), audio=sound.astype(np.float32)))
    return edited


def auc(better, worse):
    """Return the probability that a random clean clip scores above a random corrupted one."""
    order = np.sign(better[:, None] - worse[None, :])
    return float((order + 1).mean() / 2)


def assert_worse(clean, corrupted, columns):
    """Assert that every named column falls, over all pairs of clips (AUC) and clip by clip."""
    for column in columns:
        sign = 1 if HIGHER_IS_BETTER[column] else -1
        assert auc(sign * clean[column], sign * corrupted[column]) >= 0.9, column
        assert np.mean(sign * clean[column] > sign * corrupted[column]) >= 0.9, column


def assert_same(clean, corrupted, columns):
    for column in columns:
        np.testing.assert_array_equal(clean[column], corrupted[column], err_msg=column)


def blur(frames, rng):
    return ndimage.gaussian_filter(frames, (0, 1.5, 1.5, 0))


def flicker(frames, rng):
    return frames + rng.normal(0, 12, size=(len(frames), 1, 1, 1))


def noise(audio, rng):
    return audio + rng.normal(0, 0.05 * np.abs(audio).max(), size=audio.shape)


def clipping(audio, rng):
    return audio * (6 / np.abs(audio).max())


@pytest.mark.parametrize("corruption", [blur, flicker])
def test_picture_damage_lowers_visual_quality_and_leaves_sound_alone(clips, clean, corruption):
    corrupted = score(edit(clips, video=corruption))
    assert_worse(clean, corrupted, ["visual_quality"])
    assert_same(clean, corrupted, AUDIO_COLUMNS)


@pytest.mark.parametrize("corruption", [noise, clipping])
def test_sound_damage_lowers_audio_quality_and_leaves_pictures_alone(clips, clean, corruption):
    corrupted = score(edit(clips, audio=corruption))
    assert_worse(clean, corrupted, ["audio_quality", "production_quality"])
    assert_same(clean, corrupted, VIDEO_COLUMNS)


def test_shuffled_frames_lower_motion_quality(clips, clean):
    corrupted = score(edit(clips, video=lambda frames, rng: frames[rng.permutation(len(frames))]))
    assert_worse(clean, corrupted, ["motion_quality", "ib_av"])


def test_a_ball_that_does_not_move_lowers_motion_quality(clips, clean):
    corrupted = score(edit(clips, video=lambda frames, rng: np.repeat(frames[:1], len(frames), axis=0)))
    assert_worse(clean, corrupted, ["motion_quality"])


def test_a_ball_falling_upwards_lowers_motion_quality(clips, clean):
    assert_worse(clean, score(edit(clips, video=lambda frames, rng: frames[:, ::-1])), ["motion_quality"])


def test_a_caption_of_another_scene_lowers_agreement_with_text_only(clips, clean):
    corrupted = score(clips, PROMPTS[1:] + PROMPTS[:1])
    assert_worse(clean, corrupted, ["ib_tv", "text_alignment", "ib_ta"])
    assert_same(clean, corrupted, [c for c in METRIC_COLUMNS if c not in {"ib_tv", "text_alignment", "ib_ta"}])


def test_one_wrong_word_is_noticed_in_its_own_column(clips, clean):
    def other(values, value):
        names = list(values)
        return names[(names.index(value) + 1) % len(names)]

    for changes, moved in (("color", ["ib_tv", "text_alignment"]), ("pitch", ["ib_ta"])):
        values = {"color": COLORS, "pitch": PITCHES}[changes]
        scenes = [dataclasses.replace(s, **{changes: other(values, getattr(s, changes))}) for s in SCENES]
        corrupted = score(clips, [Prompt(f"p{scene.seed}", caption(scene)) for scene in scenes])
        assert_worse(clean, corrupted, moved)
        assert_same(clean, corrupted, [column for column in METRIC_COLUMNS if column not in moved])


@pytest.mark.parametrize("shift_s", [0.15, -0.15])
def test_shifted_sound_raises_desync_by_the_shift(clips, clean, shift_s):
    num_samples = round(abs(shift_s) * 16_000)

    def shift(audio, rng):
        hush = np.zeros((len(audio), num_samples))
        if shift_s > 0:
            return np.concatenate([hush, audio[:, :-num_samples]], axis=1)
        return np.concatenate([audio[:, num_samples:], hush], axis=1)

    corrupted = score(edit(clips, audio=shift))
    assert_worse(clean, corrupted, ["desync", "ib_av"])
    assert np.median(clean["desync"]) < 0.03
    assert np.median(np.abs(corrupted["desync"] - abs(shift_s))) < 0.03
    assert np.mean(np.abs(corrupted["desync"] - abs(shift_s)) < 0.06) >= 0.9


def test_sound_of_another_clip_lowers_agreement_of_sound_and_picture(clips, clean):
    swapped = [
        dataclasses.replace(clip, audio=other.audio) for clip, other in zip(clips, clips[7:] + clips[:7], strict=True)
    ]
    assert_worse(clean, score(swapped), ["ib_av", "desync", "ib_ta"])


def test_silence_is_bad_not_undefined(clips, clean):
    corrupted = score(edit(clips, audio=lambda audio, rng: np.zeros_like(audio)))
    assert_worse(clean, corrupted, ["ib_ta", "ib_av", "audio_quality"])
    np.testing.assert_array_equal(corrupted["desync"], 2.0)
    assert all(np.isfinite(values).all() for values in corrupted.values())


def test_a_clip_without_an_audio_track_has_no_scores_for_sound(clips):
    mute = dataclasses.replace(clips[0], audio=np.zeros((0, 0), np.float32), sample_rate=0)
    scores = score([mute], PROMPTS[:1])
    undefined = {column for column, values in scores.items() if np.isnan(values[0])}
    assert undefined == {*AUDIO_COLUMNS, "ib_av", "desync"}


def test_scores_lie_in_their_stated_ranges_and_rarely_tie(clips, clean):
    stirred = score(edit(clips, video=flicker, audio=noise))
    for column in METRIC_COLUMNS:
        for scores in (clean[column], stirred[column]):
            assert scores.dtype == np.float32
            assert scores.min() >= 0, column
            assert scores.max() <= (2 if column == "desync" else 1), column
            assert len(np.unique(scores)) >= 0.95 * len(scores), column


def test_scores_do_not_depend_on_the_batch(clips, clean):
    assert_same({c: v[:8] for c, v in clean.items()}, score(clips[:8], PROMPTS[:8]), METRIC_COLUMNS)
    alone = score(clips[5:6], PROMPTS[5:6])
    reverse = score(clips[::-1], PROMPTS[::-1])
    for column in METRIC_COLUMNS:
        assert alone[column][0] == clean[column][5] == reverse[column][-6]


def test_an_audio_prompt_is_what_the_sound_is_held_against(clips, clean):
    prompts = [Prompt(p.prompt_id, p.prompt, other.prompt) for p, other in pairwise(PROMPTS)]
    scores = score(clips[: len(prompts)], prompts)
    assert_same({c: v[: len(prompts)] for c, v in clean.items()}, scores, ["ib_tv", "text_alignment"])
    assert np.mean(scores["ib_ta"] < clean["ib_ta"][: len(prompts)]) >= 0.9


def test_a_caption_of_another_world_leaves_text_columns_undefined(clips):
    scores = REWARD.score(clips[:1], [Prompt("p", "a dog plays the piano \U0001f3b9 in the rain")])
    undefined = {column for column, values in scores.items() if torch.isnan(values[0])}
    assert undefined == {"ib_tv", "ib_ta", "text_alignment"}


def test_files_score_like_the_clips_they_were_written_from(clips, clean, tmp_path):
    """After H.264, clean clips still score above corrupted ones, and impacts keep their times."""
    files = []
    for index in range(8):
        write_clip(clips[index], tmp_path / f"{index}.mp4")
        files.append(ClipFile(f"{index}", tmp_path / f"{index}.mp4", tmp_path / f"{index}.wav", PROMPTS[index]))
    rows = RewardSuite([REWARD]).score_files(files)
    for index, row in enumerate(rows):
        assert row.error is None
        assert row.scores["ib_tv"] > 0.8
        assert row.scores["desync"] < 0.03
        assert row.scores["ib_ta"] == pytest.approx(clean["ib_ta"][index], abs=1e-3)  # the wav is lossless


@pytest.mark.parametrize("path", real_clips(), ids=lambda path: path.stem)
def test_real_clips_get_finite_scores(path):
    clip = read_clip(path, fps=16.0, height=64, width=96, num_frames=33)
    prompt = Prompt("p", "a small red ball bounces twice on a black background with a deep bell")
    for column, values in REWARD.score([clip], [prompt]).items():
        assert torch.isfinite(values[0]) or not clip.has_audio, column


def test_odd_clips_give_scores_too():
    """Clips with one frame, one pixel, stereo or another rate must not raise, and scores must stay in range."""
    rng = np.random.default_rng(0)
    for frames, height, width, channels, rate in ((1, 1, 1, 1, 8000), (2, 3, 90, 2, 44_100), (40, 30, 20, 6, 48_000)):
        video = rng.integers(0, 256, size=(frames, height, width, 3), dtype=np.uint8)
        audio = rng.uniform(-1, 1, size=(channels, rate // 3)).astype(np.float32)
        scores = score([AVClip(video, 24.0, audio, rate)], PROMPTS[:1])
        for column, values in scores.items():
            assert 0 <= values[0] <= 2, column


def test_modalities_name_known_columns_once():
    named = [column for columns in MODALITY_METRICS.values() for column in columns]
    assert len(named) == len(set(named))
    assert set(named) <= set(METRIC_COLUMNS) == set(HIGHER_IS_BETTER)
