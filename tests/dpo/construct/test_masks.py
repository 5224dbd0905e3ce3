"""Masks: filled, of moderate size, in connected smooth shapes, and moving where they should."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from dpo.construct.masks import Outline, draw_outlines, moving_mask, sound_mask, walk

CELLS, PIXELS = (9, 20, 30), (160, 240)


def masks(count=60, cells=CELLS, pixels=PIXELS):
    return [moving_mask(np.random.default_rng(seed), cells, pixels) for seed in range(count)]


def test_masks_are_filled_but_never_all_of_the_clip():
    areas = [mask.mean() for mask in masks()]
    assert min(areas) > 0.02
    assert max(areas) < 0.7
    assert 0.08 < np.median(areas) < 0.3
    tiny = masks(cells=(1, 2, 2), pixels=(16, 16))  # shapes often miss such few centres: those masks are drawn again
    assert all(mask.any() for mask in tiny)


def test_some_masks_move_and_some_stand_still():
    moving = [bool((mask != mask[:1]).any()) for mask in masks()]
    assert 0.4 < np.mean(moving) < 0.95


def test_shapes_drift_by_a_few_pixels_per_latent_frame():
    rng = np.random.default_rng(0)
    [first, *_] = draw_outlines(rng, PIXELS)
    path = walk(rng, first, 30)
    steps = np.diff([one.centre for one in path], axis=0)
    assert np.abs(steps).max() <= 3.0
    assert np.abs(steps).mean() > 0.2
    assert len({one.points.tobytes() for one in path}) > 5  # it grows, shrinks and turns now and then


def test_a_mask_is_a_union_of_at_most_five_shapes():
    counts = [ndimage.label(mask[0])[1] for mask in masks()]
    assert max(counts) <= 5
    assert {1, 2, 3} <= set(counts)


def test_outlines_are_closed_and_smooth():
    for seed in range(20):
        for outline in draw_outlines(np.random.default_rng(seed), PIXELS):
            edges = np.diff(outline.points, axis=0, append=outline.points[:1])
            lengths = np.linalg.norm(edges, axis=1)
            assert lengths.max() < 0.15 * lengths.sum()
            directions = np.arctan2(edges[:, 1], edges[:, 0])
            turns = (np.diff(directions, append=directions[:1]) + np.pi) % (2 * np.pi) - np.pi
            assert np.abs(turns).max() < 1.0  # no corner: at most a radian between pieces of a twelfth
            assert turns.sum() == pytest.approx(2 * np.pi, abs=0.2)  # once around


def test_points_inside_a_square_are_found():
    square = Outline(np.array([5.0, 5.0]), np.array([[-2.0, -2.0], [2.0, -2.0], [2.0, 2.0], [-2.0, 2.0]]))
    places = np.array([[5, 5], [3.5, 6.5], [8, 5], [5, 2], [1, 1]], dtype=float)
    assert square.holds(places).tolist() == [True, True, False, False, False]


def test_sound_masks_are_cells_of_time_and_mel():
    drawn = [sound_mask(np.random.default_rng(seed), (52, 16)) for seed in range(40)]
    assert {mask.shape for mask in drawn} == {(52, 16)}
    assert all(0 < mask.mean() < 0.7 for mask in drawn)
    for axis in (0, 1):  # a part of the bands, and a part of the time, of most sounds
        assert np.mean([mask.any(axis).all() for mask in drawn]) < 0.3


def test_the_same_draws_give_the_same_mask():
    for first, second in zip(masks(5), masks(5), strict=True):
        assert np.array_equal(first, second)
