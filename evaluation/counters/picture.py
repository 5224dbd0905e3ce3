"""Counter-metrics of the picture: movement and its sudden changes, brightness, saturation, features for distances.

Shapes: 3 colours, T frames, H rows, W columns of the analysed picture, which is reduced if it is large.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage, signal

from evaluation.counters.pooling import averaging, pooled_pictures
from synthetic.measure_picture import impacts_seen, shrink

LUMA = (0.2126, 0.7152, 0.0722)  # BT.709
NOISE = 2.0  # levels of 0..255: smaller changes and edges are those of a codec
MAX_STEP = 0.25  # heights per frame: the ratio that measures movement has no bound where a plain picture flickers
FEATURE_SHAPE = (8, 8, 8)  # times, rows, columns
GRID = 8  # cells along the shorter side of the picture in which movement is followed as a whole
RIDGE = 1.0  # squared levels per cell, against division by the noise of a plain picture
SMOOTHING = 3  # frames over which movement is averaged: generated pictures tremble
SPAN = 2  # a change of movement is the difference of movements this many frames apart
MIN_CHANGE = 0.5  # heights per second
PROMINENCE = 0.6  # of the largest change
MIN_GAP_S = 0.15


@dataclass(frozen=True, eq=False)
class PictureCounters:
    """Properties of a picture; units as in `evaluation.counters.names`."""

    motion: float  # NaN for a single frame
    brightness: float
    saturation: float
    onsets: tuple[float, ...]  # seconds: impacts of an object on a plain background, else sudden changes of movement
    features: np.ndarray  # float16 (3, 8, 8, 8): colours, times, rows, columns; 0..255


def measure_picture(video: np.ndarray, fps: float) -> PictureCounters:
    """Measure frames, uint8 (T, H, W, 3), at `fps` frames per second."""
    pixels = shrink(video)
    planes = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))  # (3, T, H, W)
    red, green, blue = planes
    brightest = np.maximum(np.maximum(red, green), blue).sum(dtype=np.float64)
    darkest = np.minimum(np.minimum(red, green), blue).sum(dtype=np.float64)
    impacts = impacts_seen(pixels, fps)
    return PictureCounters(
        motion=_motion(planes, fps),
        brightness=float(np.dot(LUMA, planes.mean(axis=(1, 2, 3), dtype=np.float64))),
        # A ratio of sums: nearly black pixels, whose own ratio is noise, count little.
        saturation=float((brightest - darkest) / max(brightest, 1.0)),
        onsets=sudden_changes(_movement(planes, fps), fps) if impacts is None else impacts,
        features=_features(planes),
    )


def sudden_changes(movement: np.ndarray, fps: float) -> tuple[float, ...]:
    """Return the times in seconds at which the movement (T - 1, 2) of the picture changes suddenly, as at an impact."""
    if len(movement) <= SPAN:
        return ()
    movement = ndimage.uniform_filter1d(movement, SMOOTHING, axis=0)
    change = np.linalg.norm(movement[SPAN:] - movement[:-SPAN], axis=1)
    peaks, _ = signal.find_peaks(
        np.pad(change, 1),
        height=MIN_CHANGE,
        prominence=PROMINENCE * change.max(),
        distance=max(round(MIN_GAP_S * fps), 1),
    )
    # The movement of number k is between frames k and k + 1; one element of padding precedes the first change.
    return tuple(((peaks - 1 + (SPAN + 1) / 2) / fps).tolist())


def _motion(planes: np.ndarray, fps: float) -> float:
    """Return the mean speed of edges in heights per second, whatever the brightness and contrast."""
    num_frames, height = planes.shape[1:3]
    if num_frames < 2:
        return float("nan")
    across, down = _slopes(planes)
    edges = _total_above_noise(across * across + down * down) / num_frames
    step = np.diff(_inside(planes), axis=1)
    changes = _total_above_noise(step * step) / (num_frames - 1)
    return min(changes / max(edges, 1e-6) / height, MAX_STEP) * fps


def _total_above_noise(squares: np.ndarray) -> float:
    """Return the sum of the lengths above the noise, from squares (3, ...) whose root sum over colours is a length."""
    lengths = np.sqrt(squares[0] + squares[1] + squares[2])
    return float(np.maximum(lengths - NOISE, 0.0).sum(dtype=np.float64))


def _slopes(planes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the change per pixel to the right and downwards of all pixels but the border's."""
    half = planes * np.float32(0.5)
    return half[..., 1:-1, 2:] - half[..., 1:-1, :-2], half[..., 2:, 1:-1] - half[..., :-2, 1:-1]


def _inside(planes: np.ndarray) -> np.ndarray:
    """Return the pictures without the pixels of the border, which have no slope."""
    return planes[..., 1:-1, 1:-1]


def _movement(planes: np.ndarray, fps: float) -> np.ndarray:
    """Return the movement of the picture as a whole, (T - 1, 2) to the right and downwards in heights per second.

    It is the least-squares solution, over all cells of a coarse grid, for the one displacement that explains the
    change between two frames (Lucas and Kanade 1981).
    """
    height, width = planes.shape[2:]
    cell = max(min(height, width) / GRID, 1.0)  # pixels
    grid = pooled_pictures(planes, round(height / cell), round(width / cell))
    across, down = ((slope[:, 1:] + slope[:, :-1]) / 2 for slope in _slopes(grid))
    change = np.diff(_inside(grid), axis=1)
    products = [[_per_frame(first, second) for second in (across, down)] for first in (across, down)]
    normal = np.moveaxis(np.array(products), 2, 0) + RIDGE * grid[:, 0].size * np.eye(2)  # (T - 1, 2, 2)
    target = -np.stack([_per_frame(slope, change) for slope in (across, down)], axis=1)  # (T - 1, 2)
    return np.linalg.solve(normal, target[..., None])[..., 0] * fps * cell / height


def _per_frame(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.einsum("cthw,cthw->t", first, second).astype(np.float64)


def _features(planes: np.ndarray) -> np.ndarray:
    times, rows, columns = FEATURE_SHAPE
    small = pooled_pictures(planes, rows, columns)  # (3, T, rows, columns)
    return np.einsum("st,cthw->cshw", averaging(small.shape[1], times), small).astype(np.float16)
