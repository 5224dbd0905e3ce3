"""Frames become the pixels that the published front end gives, but for few values that round to the next level."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from media import AVClip
from media.clip import empty_audio
from rewards.clip_colours import DEVIATION
from rewards.videoalign.config import VideoAlignConfig, VisionConfig
from rewards.videoalign.frontend import patch_rows, plan_frames, resize, sample_frames, smart_resize, video_patches
from tests.golden_files import Golden
from tests.rewards.videoalign.videoalign_folder import FOLDER, golden_json

CASE_NAMES = ("F1", "F2", "F3", "F4", "F5")
ONE_LEVEL = 1 / 255 / min(DEVIATION)  # of pixels, once normalised
ROUNDING = 2e-6


def golden_case(name):
    meta = golden_json("va_frontend")
    case = next(case for case in meta["cases"] if case["name"] == name)
    request = case["request"]
    config = VideoAlignConfig(
        fps=request.get("fps", 2.0), num_frames=request.get("nframes"), max_frame_pixels=request["max_pixels"]
    )
    return case, AVClip(rule_video(meta["coef"], *case["source_thw"]), case["source_fps"], empty_audio(), 0), config


def rule_video(coef, *thw):
    t, y, x, c = np.meshgrid(*(np.arange(size) for size in (*thw, 3)), indexing="ij", sparse=True)
    value = coef["a"] * x + coef["b"] * y + coef["d"] * t + coef["e"] * c + x * y // coef["k"] + t * x // coef["m"]
    return (value % 256).astype(np.uint8)


def assert_same_pixels(found, expected):
    """Resized values half way between two of the 256 levels are rounded by the last bits of the processor's sums."""
    difference = (found - expected).abs()
    assert difference.max() <= ONE_LEVEL + ROUNDING
    assert (difference > ROUNDING).float().mean() <= 1e-3


@pytest.mark.parametrize("name", CASE_NAMES)
def test_frames_sizes_grids_and_pixels(name):
    case, clip, config = golden_case(name)
    plan = plan_frames(clip, config)
    assert list(plan.indices) == case["frame_indices"]
    assert [plan.height, plan.width] == case["resized_hw"]
    assert list(plan.grid) == case["video_grid_thw"]
    assert plan.num_tokens == case["tokens"]["n_video_tokens"]
    patches = video_patches(clip, plan, config.vision_config)
    assert patches.shape == (case["n_patches"], 1176)
    assert patches.double().sum().item() == pytest.approx(case["pixel_sum"], abs=1.0)
    assert patches.double().abs().sum().item() == pytest.approx(case["pixel_abs_sum"], abs=1.0)


@pytest.mark.parametrize("name", CASE_NAMES)
def test_pixel_rows_and_resized_frames(name):
    golden = Golden(f"{FOLDER}/va_frontend.safetensors")
    _, clip, config = golden_case(name)
    plan = plan_frames(clip, config)
    rows = video_patches(clip, plan, config.vision_config)[golden[f"{name}.pixel_rows_index"]]
    assert_same_pixels(rows, golden[f"{name}.pixel_rows"])
    if f"{name}.resized_frame0_u8" not in golden.names:  # the compact copy has those of one case
        return
    frames = torch.from_numpy(clip.video[[plan.indices[0], plan.indices[-1]]]).permute(0, 3, 1, 2)
    expected = torch.stack([golden[f"{name}.resized_frame0_u8"], golden[f"{name}.resized_last_u8"]]).float()
    difference = (resize(frames, plan.height, plan.width) - expected).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() <= 1e-3


def test_all_patches_of_a_clip():
    golden = Golden(f"{FOLDER}/va_frontend_F3_full.safetensors")
    _, clip, config = golden_case("F3")
    patches = video_patches(clip, plan_frames(clip, config), config.vision_config)
    expected = golden["pixel_values_videos"]  # in the compact copy the first ones
    assert_same_pixels(patches[: len(expected)], expected)


def test_order_of_values_in_patches():
    golden = Golden(f"{FOLDER}/va_frontend.safetensors")
    shape = golden_json("va_frontend")["order_probe"]["source_tchw"]
    rows = patch_rows(torch.arange(int(np.prod(shape))).reshape(shape), VisionConfig())
    assert torch.equal(rows.int(), golden["order_probe.linear_index"])


def test_sampled_frames():
    for row in golden_json("va_frontend")["sampling"]:
        if row["sample_type"] != "uniform":
            continue
        wanted = row["total"], row["video_fps"], row.get("fps", 2.0), row.get("nframes")
        if "error" in row:
            with pytest.raises(ValueError, match=r"motion needs two"):
                sample_frames(*wanted)
        else:
            assert list(sample_frames(*wanted)) == row["indices"], row


def test_resized_sizes():
    table = golden_json("va_frontend")["smart_resize"]
    for height, width, least, most, result in table["rows"]:
        if result == "ValueError":
            with pytest.raises(ValueError, match=r"too elongated"):
                smart_resize(height, width, table["factor"], least, most)
        else:
            assert list(smart_resize(height, width, table["factor"], least, most)) == result


def test_a_side_that_shrinks_to_nothing_is_refused():
    with pytest.raises(ValueError, match=r"30 x 5900 pixels, shrunk to 76800 pixels .* raise max_frame_pixels"):
        smart_resize(30, 5900, 28, 100_352, 76_800)


def test_an_odd_number_of_frames_repeats_the_last():
    clip = AVClip(rule_video(golden_json("va_frontend")["coef"], 5, 28, 28), 16.0, empty_audio(), 0)
    config = VideoAlignConfig(num_frames=6, min_frame_pixels=28 * 28)
    plan = plan_frames(clip, config)
    assert (plan.indices, plan.grid) == ((0, 1, 2, 3, 4), (3, 2, 2))
    last_pair = video_patches(clip, plan, config.vision_config)[-4:].reshape(4, 3, 2, 14 * 14)
    assert torch.equal(last_pair[:, :, 0], last_pair[:, :, 1])


def test_other_patch_sizes_change_the_grid():
    vision = VisionConfig(patch_size=8)
    clip = AVClip(np.zeros((4, 64, 64, 3), np.uint8), 4.0, empty_audio(), 0)
    config = VideoAlignConfig(vision_config=vision, min_frame_pixels=64 * 64)
    plan = plan_frames(clip, config)
    assert (plan.height, plan.width, plan.grid, plan.num_tokens) == (64, 64, (2, 8, 8), 32)
    assert video_patches(clip, plan, vision).shape == (128, vision.patch_dim)
