"""Bounce scenes: the complete description of one clip as a function of a seed.

Lengths are in pixels of the 64 x 64 frame: y grows downwards, heights grow upwards from the floor. Times are in
seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

RGB = tuple[int, int, int]

HEIGHT = WIDTH = 64
FPS = 16.0
NUM_FRAMES = 33
SAMPLE_RATE = 16_000
NUM_SAMPLES = round(NUM_FRAMES / FPS * SAMPLE_RATE)
DURATION_S = NUM_FRAMES / FPS

# Any two colours, and any colour and background, are at least 110 apart in RGB (two backgrounds: 85), so that they stay
# distinct after 4:2:0 chroma subsampling and a VAE.
COLORS: dict[str, RGB] = {
    "red": (230, 25, 40),
    "orange": (255, 130, 0),
    "yellow": (255, 240, 40),
    "green": (40, 220, 60),
    "cyan": (50, 225, 235),
    "blue": (60, 100, 255),
    "magenta": (230, 45, 225),
    "white": (250, 250, 250),
}
BACKGROUNDS: dict[str, RGB] = {
    "black": (10, 10, 10),
    "gray": (105, 105, 105),
    "navy": (15, 25, 110),
    "maroon": (110, 20, 35),
    "forest": (15, 90, 45),
}
SIZES: dict[str, float] = {"small": 5.0, "medium": 8.0, "large": 12.0}  # radius, pixels
PITCHES: dict[str, float] = {  # Hz, 8.7 semitones apart
    "deep": 200.0,
    "low": 330.0,
    "middle": 545.0,
    "high": 900.0,
    "bright": 1490.0,
    "shrill": 2460.0,
}
MATERIALS = ("bell", "wood", "drum")
SIDES = ("left", "right")  # side to which the ball drifts
MAX_IMPACTS = 4

HELD_OUT_SEED_START = 1_000_000  # seeds from this one on are never used for training

FLOOR_Y = 61.0
CEILING_Y = 2.0
FIRST_IMPACT_S = (0.22, 1.30)
LAST_IMPACT_S = 1.85
NEXT_IMPACT_S = DURATION_S + 0.06  # the first impact after the clip is at least this late
MIN_GAP_S = 0.27
MIN_BOUNCE = 5.0  # smallest rise of a visible bounce, pixels
# Range of the first flight time for each number of impacts; narrow ranges only reduce the number of rejected draws.
FLIGHT_RANGE_S = {1: (0.85, 1.9), 2: (0.5, 1.2), 3: (0.4, 0.8), 4: (0.33, 0.6)}


@dataclass(frozen=True)
class Scene:
    """One ball that is dropped, bounces and drifts to one side.

    Heights are measured from the floor to the ball's lowest point. Between impacts the ball is in free fall; each
    impact keeps the fraction `restitution` of the vertical speed, so flights shorten by the same factor.
    """

    seed: int
    color: str
    size: str
    background: str
    pitch: str
    material: str
    side: str
    x_start: float  # x of the centre at time 0
    x_end: float  # x of the centre at the end of the clip
    first_impact_s: float
    first_flight_s: float  # between the first and the second impact, which may be after the end of the clip
    first_bounce: float  # height of the first bounce's apex
    restitution: float

    @property
    def radius(self) -> float:
        return SIZES[self.size]

    @property
    def gravity(self) -> float:
        """Gravity in pixels per second squared."""
        return 8 * self.first_bounce / self.first_flight_s**2

    @property
    def impact_times(self) -> tuple[float, ...]:
        """Times of the impacts inside the clip, in seconds from its start, ascending."""
        return tuple(time for time in _all_impacts(self) if time < DURATION_S)

    @property
    def impact_speeds(self) -> tuple[float, ...]:
        """Downward speed at each impact, pixels per second."""
        first = self.gravity * self.first_flight_s / (2 * self.restitution)
        return tuple(first * self.restitution**index for index in range(self.num_impacts))

    @property
    def num_impacts(self) -> int:
        return len(self.impact_times)

    def heights(self, times: np.ndarray) -> np.ndarray:
        """Return the height above the floor in pixels, (N,), at `times` (N,) in seconds."""
        impacts = np.asarray(_all_impacts(self))
        index = np.searchsorted(impacts, times, side="right")  # number of earlier impacts
        # Before the first impact the ball is on the parabola that ends there; later, on the one that starts at the
        # last impact.
        since = times - impacts[np.maximum(index - 1, 0)]
        flight = self.first_flight_s * self.restitution ** (index - 1.0)
        since = np.where(index == 0, since + flight, since)
        return 0.5 * self.gravity * since * (flight - since)

    def centres(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the centre of the ball, x (N,) and y (N,) in pixels, at `times` (N,) in seconds."""
        x = self.x_start + (self.x_end - self.x_start) * times / DURATION_S
        return x, FLOOR_Y - self.radius - self.heights(times)


def scene_from_seed(seed: int) -> Scene:
    """Draw the scene of a seed; attributes, including num_impacts, are uniform and independent.

    Raises:
        ValueError: for a negative seed.
    """
    if seed < 0:
        raise ValueError(f"Seed {seed} is negative, but scenes are numbered from 0: pass a seed >= 0.")
    rng = np.random.default_rng(seed)
    size = _pick(rng, SIZES)
    side = _pick(rng, SIDES)
    near, far = sorted(rng.uniform([15.0, 40.0], [24.0, 49.0]))
    num_impacts = int(rng.integers(1, MAX_IMPACTS + 1))
    draft = Scene(
        seed=seed,
        color=_pick(rng, COLORS),
        size=size,
        background=_pick(rng, BACKGROUNDS),
        pitch=_pick(rng, PITCHES),
        material=_pick(rng, MATERIALS),
        side=side,
        x_start=near if side == "right" else far,
        x_end=far if side == "right" else near,
        first_impact_s=0.0,
        first_flight_s=0.0,
        first_bounce=0.0,
        restitution=0.0,
    )
    room = FLOOR_Y - CEILING_Y - 2 * draft.radius
    while True:  # about 15 draws on average
        scene = replace(
            draft,
            first_impact_s=rng.uniform(*FIRST_IMPACT_S),
            first_flight_s=rng.uniform(*FLIGHT_RANGE_S[num_impacts]),
            first_bounce=room * rng.uniform(0.45, 0.95),
            restitution=rng.uniform(0.78, 0.95),
        )
        if _is_clear(scene, num_impacts, room):
            return scene


def _all_impacts(scene: Scene) -> tuple[float, ...]:
    flights = scene.first_flight_s * scene.restitution ** np.arange(MAX_IMPACTS + 1)
    return (scene.first_impact_s, *(scene.first_impact_s + np.cumsum(flights)).tolist())


def _is_clear(scene: Scene, num_impacts: int, room: float) -> bool:
    """Return true if every impact can be seen and heard separately, and the ball stays in the frame."""
    times = _all_impacts(scene)
    last = times[num_impacts - 1]
    if last > LAST_IMPACT_S or times[num_impacts] < NEXT_IMPACT_S:
        return False
    if num_impacts > 1 and last - times[num_impacts - 2] < MIN_GAP_S:
        return False
    lowest_bounce = scene.first_bounce * scene.restitution ** (2 * max(num_impacts - 2, 0))
    approach = scene.heights(np.linspace(0, scene.first_impact_s, 9))
    departure = scene.heights(np.linspace(last, DURATION_S - 1 / FPS, 9))
    if approach[0] < MIN_BOUNCE:  # the clip would start below the floor or too close to it
        return False
    return bool(min(lowest_bounce, departure.max()) >= MIN_BOUNCE and approach.max() <= room)


def _pick(rng: np.random.Generator, choices: Mapping[str, object] | tuple[str, ...]) -> str:
    return tuple(choices)[rng.integers(len(choices))]
