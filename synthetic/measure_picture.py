"""Measurement of the picture of a clip with one ball on a plain background, from pixels alone.

Lengths are in Bounce pixels, 1/64 of the frame's height, for any clip size; times are in seconds.
Shapes: T frames, H rows, W columns (of the analysed picture, which is reduced by a whole factor if it is large).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage, signal

from synthetic.scene import HEIGHT

MAX_BORDER_SPREAD = 45.0  # RGB distance; a border that varies more is no plain background
MIN_CONTRAST = 45.0  # RGB distance between ball and background
MIN_AREA, MAX_AREA = 10.0, 0.35  # of a ball: square Bounce pixels, fraction of the frame
MIN_VISIBILITY = 0.5  # fraction of frames; below it the track is not analysed
MIN_PROMINENCE = 2.0  # Bounce pixels that the ball must rise around an impact
MIN_GAP_S = 0.15  # between impacts
FIT_S = 0.12  # length of track on each side of an impact that is fitted to find its time
FLOOR_TOLERANCE = 10.0  # largest height difference between the contacts of one clip, Bounce pixels
EDGE_PIXELS = 16  # steepest pixels per frame that determine the sharpness
RGBFloat = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class PictureMeasurement:
    """Visual part of `synthetic.measure.Measurement`, which documents the fields."""

    background_rgb: RGBFloat | None
    track: np.ndarray
    sharpness: float
    flicker: float
    color_rgb: RGBFloat | None = None
    radius: float | None = None
    radius_variation: float = 0.0
    visibility: float = 0.0
    stray: float = 0.0
    drift: float | None = None
    roughness: float = 0.0
    impacts: tuple[float, ...] = ()
    impact_speeds: tuple[float, ...] = field(default=())


def measure_picture(video: np.ndarray, fps: float) -> PictureMeasurement:
    """Measure frames, uint8 (T, H, W, 3), at `fps` frames per second."""
    pixels = shrink(video)
    background = _background(pixels)
    found = None if background is None else _locate(pixels, background)
    if found is None:
        return PictureMeasurement(
            background_rgb=_rgb(background),
            track=np.full((len(pixels), 2), np.nan),
            sharpness=_sharpness(pixels),
            flicker=_flicker(pixels, np.ones(pixels.shape[:3], dtype=bool)),
        )
    radii = np.sqrt(found.area[found.visible] / np.pi) * (HEIGHT / pixels.shape[1])
    contrast = np.linalg.norm(found.color - background)
    stray = ((found.difference > 0.5 * contrast) & ~found.near).sum() / max(found.ball.sum(), 1)
    steps = _follow(found.track, fps) if found.is_visible else _NOTHING
    return PictureMeasurement(
        background_rgb=_rgb(background),
        track=found.track,
        sharpness=_sharpness(pixels),
        flicker=_flicker(pixels, ~found.near),
        color_rgb=_rgb(found.color),
        radius=float(np.median(radii)) if len(radii) else None,
        radius_variation=float(radii.std() / radii.mean()) if len(radii) else 0.0,
        visibility=float(found.visible.mean()),
        stray=float(stray),
        drift=steps.drift,
        roughness=steps.roughness,
        impacts=steps.impacts,
        impact_speeds=steps.speeds,
    )


def impacts_seen(pixels: np.ndarray, fps: float) -> tuple[float, ...] | None:
    """Return the times in seconds at which the ball strikes the floor, as `measure_picture` does, and nothing else.

    None where no ball can be followed: without a plain background, or one object on it in most frames.

    Args:
        pixels: float32 (T, H, W, 3), reduced by `shrink`.
        fps: frames per second.
    """
    background = _background(pixels)
    found = None if background is None else _locate(pixels, background)
    return _follow(found.track, fps).impacts if found is not None and found.is_visible else None


@dataclass(frozen=True, eq=False)
class _Ball:
    """The ball in every frame."""

    difference: np.ndarray  # (T, H, W) RGB distance to the background
    ball: np.ndarray  # (T, H, W) bool
    near: np.ndarray  # (T, H, W) bool, `ball` and two pixels around it
    color: np.ndarray  # (3,)
    area: np.ndarray  # (T,) analysed pixels
    visible: np.ndarray  # (T,) bool
    track: np.ndarray  # (T, 2) x, y in Bounce pixels; NaN where it is not visible

    @property
    def is_visible(self) -> bool:
        """Return whether enough frames show the ball for its track to be analysed."""
        return bool(self.visible.mean() >= MIN_VISIBILITY)


def _locate(pixels: np.ndarray, background: np.ndarray) -> _Ball | None:
    """Find the ball in all frames; None if nothing contrasts with the background."""
    scale = HEIGHT / pixels.shape[1]  # Bounce pixels per analysed pixel
    difference = _length(pixels - background)  # (T, H, W)
    ball = _find_ball(difference, scale)
    if ball is None:
        return None
    color = _ball_color(pixels, difference, ball)
    near = ndimage.binary_dilation(ball, _IN_FRAME, iterations=2)
    area, track = _areas_and_track(pixels, background, color, near)
    visible = area * scale**2 >= MIN_AREA
    return _Ball(difference, ball, near, color, area, visible, np.where(visible[:, None], track * scale, np.nan))


@dataclass(frozen=True)
class _Motion:
    drift: float | None
    roughness: float
    impacts: tuple[float, ...]
    speeds: tuple[float, ...]


_NOTHING = _Motion(None, 0.0, (), ())
_IN_FRAME = np.zeros((3, 3, 3), dtype=bool)  # 4-neighbourhood within a frame, no connection between frames
_IN_FRAME[1] = ndimage.generate_binary_structure(2, 1)


def shrink(video: np.ndarray) -> np.ndarray:
    """Reduce frames by block means until the shorter side has 64 to 127 pixels -> float32 (T, H, W, 3)."""
    factor = max(min(video.shape[1:3]) // HEIGHT, 1)
    if factor == 1:
        return video.astype(np.float32)
    stride = max(factor // 3, 1)  # in a large picture, blocks are sampled instead of averaged in full
    video, factor = video[:, ::stride, ::stride], factor // stride
    frames, height, width = len(video), video.shape[1] // factor, video.shape[2] // factor
    out = np.zeros((frames, height, width, 3), dtype=np.float32)
    for source, target in zip(
        video, out, strict=True
    ):  # frame by frame, because a float copy of a long clip would be large
        for row in range(factor):
            for column in range(factor):
                target += source[row : height * factor : factor, column : width * factor : factor]
    return out / factor**2


def _background(pixels: np.ndarray) -> np.ndarray | None:
    """Return the median colour (3,) of the border, or None if the border is not plain."""
    frames = len(pixels)
    sides = (pixels[:, :2], pixels[:, -2:], pixels[:, 2:-2, :2], pixels[:, 2:-2, -2:])
    border = np.concatenate([side.reshape(frames, -1, 3) for side in sides], axis=1).reshape(-1, 3)
    color = np.median(border, axis=0)
    spread = np.median(_length(border - color))
    return color if spread <= MAX_BORDER_SPREAD else None


def _find_ball(difference: np.ndarray, scale: float) -> np.ndarray | None:
    """Return the largest region of each frame that differs from the background, bool (T, H, W); None without one."""
    contrast = _top_mean(difference, round(len(difference) * MIN_AREA / scale**2))
    if contrast < MIN_CONTRAST:
        return None
    labels, num_labels = ndimage.label(difference > 0.5 * contrast, _IN_FRAME)
    if num_labels == 0:
        return None
    sizes = np.bincount(labels.reshape(-1), minlength=num_labels + 1)
    sizes[0] = 0
    frames = labels.reshape(len(labels), -1)  # (T, H * W)
    largest = frames[np.arange(len(frames)), np.argmax(sizes[frames], axis=1)]  # (T,), 0 where a frame has none
    too_big = sizes[largest] > MAX_AREA * difference[0].size
    largest[too_big] = 0
    ball = (labels == largest[:, None, None]) & (largest > 0)[:, None, None]
    return ball if ball.any() else None


def _ball_color(pixels: np.ndarray, difference: np.ndarray, ball: np.ndarray) -> np.ndarray:
    """Return the median colour (3,) of the ball's interior.

    The edge is left out: rendering, chroma subsampling and blur mix it with the background.
    """
    inside = ndimage.binary_erosion(ball, _IN_FRAME)
    if inside.sum() < 0.1 * ball.sum():
        inside = ball & (difference >= np.median(difference[ball]))
    return np.median(pixels[inside], axis=0)


def _areas_and_track(
    pixels: np.ndarray, background: np.ndarray, color: np.ndarray, near: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return area (T,) and centre (T, 2) as (x, y) in analysed pixels.

    Each pixel is weighted by its share of the ball's colour.
    """
    axis = color - background
    share = np.clip((pixels - background) @ (axis / (axis @ axis)), 0.0, 1.0) * near  # (T, H, W)
    columns, rows = share.sum(1), share.sum(2)  # (T, W), (T, H)
    area = rows.sum(1)
    safe = np.maximum(area, 1e-6)
    x = columns @ (np.arange(columns.shape[1]) + 0.5) / safe
    y = rows @ (np.arange(rows.shape[1]) + 0.5) / safe
    return area, np.stack([x, y], axis=1)


def _follow(track: np.ndarray, fps: float) -> _Motion:
    """Return drift, impacts and roughness of a track (T, 2), which has NaN where the ball is not visible."""
    frames = np.arange(len(track))
    seen = ~np.isnan(track[:, 0])
    x, y = (np.interp(frames, frames[seen], track[seen, axis]) for axis in (0, 1))
    if len(track) < 3:
        return _Motion(float(x[-1] - x[0]), 0.0, (), ())
    drift = np.polyfit(frames, x, 1)[0] * (len(frames) - 1)
    peaks, _ = signal.find_peaks(y, prominence=MIN_PROMINENCE, distance=max(round(MIN_GAP_S * fps), 1))
    bends = np.diff(y, 2)  # of frames 1 .. T - 2
    in_flight = np.ones(len(bends), dtype=bool)
    for peak in peaks:
        in_flight[max(peak - 2, 0) : peak + 1] = False
    gravity = float(np.median(bends[in_flight])) if in_flight.any() else 0.0  # pixels per frame squared
    gravity = max(gravity, 0.0)
    contacts = [_contact(y, int(peak), gravity, fps) for peak in peaks]
    floor = max((height for _, height, _ in contacts), default=0.0)
    contacts = [contact for contact in contacts if contact[1] >= floor - FLOOR_TOLERANCE]
    unsteady = np.concatenate([np.diff(x, 2), bends[in_flight] - gravity])
    return _Motion(
        drift=float(drift),
        roughness=float(np.sqrt(np.mean(unsteady**2))),
        impacts=tuple(frame / fps for frame, _, _ in contacts),
        speeds=tuple(speed * fps for _, _, speed in contacts),
    )


def _contact(y: np.ndarray, peak: int, gravity: float, fps: float) -> tuple[float, float, float]:
    """Return time (frames), height (y) and downward speed (pixels per frame) where the flights around a peak meet."""
    reach = max(round(FIT_S * fps), 2)
    before = np.arange(max(peak - reach, 0), peak)
    after = np.arange(peak + 1, min(peak + 1 + reach, len(y)))
    if len(before) < 2 or len(after) < 2:
        return float(peak), float(y[peak]), 0.0
    # With known gravity, y - gravity / 2 * (t - peak)^2 is a straight line on each side; they cross at the contact.
    (slope_in, start_in), (slope_out, start_out) = (
        np.polyfit(side - peak, y[side] - 0.5 * gravity * (side - peak) ** 2, 1) for side in (before, after)
    )
    bend = slope_in - slope_out
    offset = float(np.clip((start_out - start_in) / bend, -1.0, 1.0)) if bend > 1e-6 else 0.0
    height = start_in + slope_in * offset + 0.5 * gravity * offset**2
    return peak + offset, float(height), float(max(slope_in + gravity * offset, 0.0))


def _sharpness(pixels: np.ndarray) -> float:
    """Return the slope of the steepest edges relative to the clip's contrast, per analysed pixel: 1 is a hard edge."""
    if min(pixels.shape[1:3]) < 3:
        return 0.0
    down = _length(pixels[:, 1:, :-1] - pixels[:, :-1, :-1])
    right = _length(pixels[:, :-1, 1:] - pixels[:, :-1, :-1])
    low, high = np.percentile(pixels[::4, ::2, ::2].reshape(-1, 3), (0.5, 99.5), axis=0)
    return _top_mean(np.hypot(down, right), EDGE_PIXELS * len(pixels)) / max(float(np.linalg.norm(high - low)), 1.0)


def _flicker(pixels: np.ndarray, still: np.ndarray) -> float:
    """Return the mean absolute change between frames, 0..255, of pixels that are background (`still`) in both."""
    if len(pixels) < 2:
        return 0.0
    both = still[1:] & still[:-1]
    change = np.einsum("thwc,thw->", np.abs(np.diff(pixels, axis=0)), both.astype(np.float32))
    return float(change / max(3 * both.sum(), 1))


def _length(vectors: np.ndarray) -> np.ndarray:
    """Return the Euclidean length over the last axis; einsum takes a third of the time of (vectors**2).sum(-1)."""
    return np.sqrt(np.einsum("...c,...c->...", vectors, vectors))


def _top_mean(values: np.ndarray, count: int) -> float:
    """Return the mean of the `count` largest of non-negative values under 1000.

    Values are rounded to integers, so that counting replaces sorting.
    """
    counts = np.bincount(np.rint(values).astype(np.int64).reshape(-1))
    taken = np.minimum(np.cumsum(counts[::-1]), max(count, 1))
    return float(np.diff(taken, prepend=0) @ np.arange(len(counts) - 1, -1, -1) / taken[-1])


def _rgb(color: np.ndarray | None) -> RGBFloat | None:
    return None if color is None else (float(color[0]), float(color[1]), float(color[2]))
