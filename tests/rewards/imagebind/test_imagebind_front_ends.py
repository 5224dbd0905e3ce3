"""What ImageBind hears and sees, against the published front ends."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torchaudio.functional import resample

from evaluation.judges.javis_score import JavisScoreConfig, sync_windows
from rewards.imagebind.audio_front_end import audio_views, clip_ranges
from rewards.imagebind.config import VisionConfig
from rewards.imagebind.video_front_end import (
    clip_frames,
    frame_pictures,
    resize_frame,
    resize_frames,
    three_crops,
    video_views,
)
from tests.golden_files import Golden

MEL_TOLERANCE, WAVE_TOLERANCE, PICTURE_TOLERANCE = 2e-4, 1e-5, 5e-5
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def sounds():
    return Golden("synchformer_imagebind/ib_audio_frontend.safetensors")


@pytest.fixture(scope="module")
def pictures():
    return Golden("synchformer_imagebind/ib_video_frontend.safetensors")


def wave_16k(golden, name):
    wave = golden[f"{name}.wave_i16"].float() / 32768
    rate = golden.get(f"{name}.sample_rate")
    return wave if rate is None else resample(wave, int(rate), 16_000)


def cases_of(golden, ending):
    return {name.partition(".")[0] for name in golden.names if name.endswith(ending)}


def heard(wave, protocol):
    return audio_views(wave.clone(), 128, 204, protocol)


def test_mel_clips_are_the_published_ones(sounds):
    names = cases_of(sounds, ".ranges") & cases_of(sounds, ".mel")
    assert {"overlap_stereo", "short"} <= names
    for name in names:
        wave = wave_16k(sounds, name)
        assert [list(span) for span in clip_ranges(wave.shape[1])] == sounds[f"{name}.ranges"].tolist(), name
        if f"{name}.wave_16k" in sounds.names:
            torch.testing.assert_close(wave, sounds[f"{name}.wave_16k"], rtol=0, atol=WAVE_TOLERANCE)
        views = heard(wave, "javisbench")
        torch.testing.assert_close(views.inputs, sounds[f"{name}.mel"], rtol=0, atol=MEL_TOLERANCE)
        assert views.weights.tolist() == pytest.approx([1 / 3] * 3), name


def test_ranges_of_samples_are_the_published_ones(sounds):
    for num_samples, ranges in zip(sounds["ranges_table.n"].tolist(), sounds["ranges_table.ranges"], strict=True):
        assert [list(span) for span in clip_ranges(num_samples)] == ranges.tolist(), num_samples


def test_windows_of_one_buffer_disturb_each_other_as_published(sounds):
    lengths = {"javis": (0.5, 0.0), "javis2": (2.0, 1.5)}
    names = cases_of(sounds, ".video_windows")
    assert names
    for name in names:
        wave, (window_s, overlap_s) = wave_16k(sounds, name), lengths[name]
        config = JavisScoreConfig(window_s=window_s, overlap_s=overlap_s)
        num_frames, fps = int(sounds[f"{name}.n_frames"]), float(sounds[f"{name}.fps"])
        windows = sync_windows(num_frames, fps, wave.shape[1], config, "javisbench")
        assert [list(window.frames) for window in windows] == sounds[f"{name}.video_windows"].tolist()
        found = torch.stack([audio_views(wave[:, slice(*w.samples)], 128, 204, "javisbench").inputs for w in windows])
        if f"{name}.mel" in sounds.names:
            torch.testing.assert_close(found, sounds[f"{name}.mel"], rtol=0, atol=MEL_TOLERANCE)
        else:
            torch.testing.assert_close(found[:, 0], sounds[f"{name}.mel_clip0"], rtol=0, atol=MEL_TOLERANCE)


def test_by_default_each_clip_is_heard_as_if_it_were_alone(sounds):
    wave = wave_16k(sounds, "overlap_stereo")
    clips = heard(wave, "correct").inputs
    alone = [heard(wave[:, start:stop], "correct").inputs[0] for start, stop in clip_ranges(wave.shape[1])]
    torch.testing.assert_close(clips, torch.stack(alone), rtol=0, atol=MEL_TOLERANCE)
    assert (clips[1:] - sounds["overlap_stereo.mel"][1:]).abs().max() > 0.01  # where clips overlap in the release


def test_a_sound_is_left_as_it_is_by_default_and_its_equal_clips_come_once(sounds):
    wave = wave_16k(sounds, "short")
    before = wave.clone()
    views = audio_views(wave, 128, 204, "correct")
    assert torch.equal(wave, before)
    assert views.weights.tolist() == [1.0]
    torch.testing.assert_close(views.inputs, sounds["short.mel"][:1], rtol=0, atol=MEL_TOLERANCE)


def test_the_shortest_sound_is_one_frame():
    assert heard(torch.rand(1, 400), "correct").inputs.shape == (1, 1, 128, 204)
    with pytest.raises(ValueError, match=r"399 samples at 16 kHz.*25 ms or more"):
        heard(torch.rand(1, 399), "correct")


def test_crops_are_the_published_ones(pictures):
    strided = [name for name in pictures.names if ".out_stride" in name]
    assert strided
    for key in strided:
        name, stride = key.partition(".")[0], int(key.partition("stride")[2])
        frames, fps = pictures[f"{name}.frames"], float(pictures[f"{name}.fps"])
        pairs = clip_frames(len(frames), fps)
        assert [list(pair) for pair in pairs] == pictures[f"{name}.indices"].tolist()
        crops = three_crops(resize_frames(frames[torch.tensor(pairs).flatten()], 224).unflatten(0, (5, 2)), 224)
        torch.testing.assert_close(crops[..., ::stride, ::stride], pictures[key], rtol=0, atol=PICTURE_TOLERANCE)
        for whole in (one for one in pictures.names if one.startswith(f"{name}.out_full.")):
            crop = crops[int(whole.split(".")[-1]), :, 1]
            torch.testing.assert_close(crop, pictures[whole], rtol=0, atol=PICTURE_TOLERANCE)


def test_frames_of_clips_are_the_published_ones(pictures):
    for (num_frames, fps), indices in zip(pictures["table.n_fps"].tolist(), pictures["table.indices"], strict=True):
        assert [list(pair) for pair in clip_frames(int(num_frames), fps)] == indices.tolist(), (num_frames, fps)


@pytest.mark.parametrize(
    ("num_frames", "size", "num_views"), [(48, (30, 40), 15), (33, (30, 30), 2), (10, (20, 30), 3)]
)
def test_views_that_are_the_same_come_once_with_their_weight(num_frames, size, num_views):
    video = np.random.default_rng(0).integers(0, 256, (num_frames, *size, 3), dtype=np.uint8)
    views = video_views(video, 16.0, VisionConfig(width=8, blocks=1, heads=1, image_size=20, patch_size=10), CPU)
    pairs = torch.tensor(clip_frames(num_frames, 16.0)).flatten()
    every = three_crops(resize_frames(torch.from_numpy(video)[pairs], 20).unflatten(0, (5, 2)), 20)
    assert len(views.inputs) == num_views
    mean = torch.einsum("s,s...->...", views.weights, views.inputs)
    torch.testing.assert_close(mean, every.mean(0), rtol=0, atol=1e-5)


def test_single_frames_are_the_published_pictures(pictures):
    names = cases_of(pictures, ".out_u8")
    assert len(names) >= 2
    for name in names:
        frame = pictures[f"{name}.in"].numpy()
        assert np.array_equal(resize_frame(frame, 224).transpose(2, 0, 1), pictures[f"{name}.out_u8"].numpy()), name
        found = frame_pictures(frame[None], 224)[0, :, ::8, ::8]
        torch.testing.assert_close(found, pictures[f"{name}.out_f32_s8"], rtol=0, atol=1e-6)


def test_a_clip_of_more_frames_has_them_evenly_spaced_from_the_first_to_the_last():
    whole = clip_frames(33, 16.0, 8)[0]
    assert whole[0] == 0
    assert whole[-1] == 31
    assert {later - earlier for earlier, later in pairwise(whole)} <= {4, 5}
