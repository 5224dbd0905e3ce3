"""Random regions of a clip in latent cells: unions of closed smooth shapes, some of which move.

Source: docs/upstream/constructed_negatives.md, section 2.3; made anew, since the published generator does not run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

MAX_SHAPES = 5
NUM_ANCHORS = (6, 8)  # of an outline
RADIUS = (0.6, 0.8)  # as a share of half the box
BOX = (1 / 3, 1.0)  # as a share of the frame, per side
ALL_SHRUNK = 0.7  # probability that all shapes are shrunk, else half of them
POINTS_PER_PIECE = 12
MOVES = 0.5  # probability that a shape moves
MAX_SPEED, ACCELERATION = 3.0, 0.5  # pixels per latent frame; standard deviation of its change per latent frame
CHANGES = 0.25  # probability of a zoom, and of a turn, per latent frame
ZOOM, TURN_DEGREES = (0.9, 1.1), (1.0, 10.0)


@dataclass(frozen=True, eq=False)
class Outline:
    """A closed chain of points around a centre, as (x, y) in the units of the frame."""

    centre: np.ndarray  # (2,)
    points: np.ndarray  # (P, 2), relative to the centre

    def holds(self, places: np.ndarray) -> np.ndarray:
        """Return which of the places (N, 2) lie inside, bool (N,), by the even-odd rule."""
        start = self.points + self.centre
        end = np.roll(start, -1, axis=0)
        x, y = places[:, :1], places[:, 1:]  # (N, 1)
        crosses = (start[:, 1] > y) != (end[:, 1] > y)  # (N, P)
        height = np.where(start[:, 1] == end[:, 1], 1.0, end[:, 1] - start[:, 1])
        is_left = x < start[:, 0] + (y - start[:, 1]) / height * (end[:, 0] - start[:, 0])
        return (crosses & is_left).sum(1) % 2 == 1


def moving_mask(rng: np.random.Generator, cells: tuple[int, int, int], pixels: tuple[int, int]) -> np.ndarray:
    """Draw a mask of a video, bool (T, H, W), with at least one cell.

    Args:
        rng: source of all draws.
        cells: number of latent frames, rows and columns.
        pixels: height and width of the frame, in which the shapes move.
    """
    num_frames, rows, columns = cells
    places = _cell_centres((rows, columns), pixels)

    def shape(outline: Outline) -> np.ndarray:
        if rng.random() < MOVES:
            return np.stack([one.holds(places) for one in walk(rng, outline, num_frames)])
        return np.broadcast_to(outline.holds(places), (num_frames, len(places)))

    return _filled(lambda: np.any([shape(one) for one in draw_outlines(rng, pixels)], axis=0)).reshape(cells)


def sound_mask(rng: np.random.Generator, cells: tuple[int, int]) -> np.ndarray:
    """Draw a mask of a sound, bool (T, M) in cells of time and mel, with at least one cell.

    Time is an axis of the mask, so its shapes stand still.
    """
    places = _cell_centres(cells, cells)
    return _filled(lambda: np.any([one.holds(places) for one in draw_outlines(rng, cells)], axis=0)).reshape(cells)


def draw_outlines(rng: np.random.Generator, size: tuple[int, int]) -> list[Outline]:
    """Draw 1 to 5 shapes in a frame of `size` (height, width), shrunk so that their total area stays alike."""
    count = int(rng.integers(1, MAX_SHAPES + 1))
    num_shrunk = count if rng.random() < ALL_SHRUNK else count // 2
    return [_outline(rng, size, count**-0.5 if number < num_shrunk else 1.0) for number in range(count)]


def walk(rng: np.random.Generator, outline: Outline, num_frames: int) -> list[Outline]:
    """Return a shape in each of the frames: it drifts, and now and then grows, shrinks or turns."""
    velocity = rng.uniform(-MAX_SPEED, MAX_SPEED, 2)
    path = [outline]
    while len(path) < num_frames:
        outline = replace(outline, centre=outline.centre + velocity, points=_changed(rng, outline.points))
        velocity = np.clip(velocity + rng.normal(0, ACCELERATION, 2), -MAX_SPEED, MAX_SPEED)
        path.append(outline)
    return path


def _outline(rng: np.random.Generator, size: tuple[int, int], scale: float) -> Outline:
    frame = np.array(size[::-1], dtype=float)  # width, height
    box = scale * frame * rng.uniform(*BOX, 2)
    centre = rng.uniform(box / 2, frame - box / 2)
    count = int(rng.integers(NUM_ANCHORS[0], NUM_ANCHORS[1] + 1))
    angles = 2 * np.pi * (np.arange(count) + rng.uniform(-0.25, 0.25, count)) / count
    anchors = np.stack([np.cos(angles), np.sin(angles)], axis=1) * rng.uniform(*RADIUS, (count, 1)) * box / 2
    return Outline(centre, _smooth_chain(anchors))


def _smooth_chain(anchors: np.ndarray) -> np.ndarray:
    """Return points on the closed chain of cubic Bezier pieces through the anchors (A, 2), without corners."""
    following = np.roll(anchors, -1, axis=0)
    tangents = (following - np.roll(anchors, 1, axis=0)) / 6
    controls = anchors, anchors + tangents, following - np.roll(tangents, -1, axis=0), following
    t = np.linspace(0, 1, POINTS_PER_PIECE, endpoint=False)[:, None, None]
    weights = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3
    points = sum(weight * control for weight, control in zip(weights, controls, strict=True))  # (P, A, 2)
    return np.asarray(points).swapaxes(0, 1).reshape(-1, 2)


def _changed(rng: np.random.Generator, points: np.ndarray) -> np.ndarray:
    if rng.random() < CHANGES:
        points = points * rng.uniform(*ZOOM)
    if rng.random() < CHANGES:
        angle = np.radians(rng.choice((-1, 1)) * rng.uniform(*TURN_DEGREES))
        points = points @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return points


def _cell_centres(cells: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Return the centres (rows * columns, 2) of cells, as (x, y) in a frame of `size` (height, width)."""
    rows, columns = ((np.arange(count) + 0.5) * length / count for count, length in zip(cells, size, strict=True))
    y, x = np.meshgrid(rows, columns, indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=1)


def _filled(draw: Callable[[], np.ndarray]) -> np.ndarray:
    """Draw masks until one has a cell."""
    while not (mask := draw()).any():
        pass
    return mask
