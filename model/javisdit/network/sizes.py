"""Sizes of clips: the published resolutions, and the latent and token sizes of a clip.

Aspect ratios are height to width, as published: 9:16 is landscape. Source: docs/upstream/data.md, section 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

FRAMES_PER_STEP = 4  # video frames per latent step, after the first frame
PIXELS_PER_LATENT = 8  # per side, in the published video codec
PATCH = 2  # latents per side of a token
PIXEL_MULTIPLE = PIXELS_PER_LATENT * PATCH

NOMINAL_PIXELS = {"144p": 36_864, "240p": 102_240, "360p": 230_400, "480p": 409_920}

_NOMINAL_SIZES = """
        144p     240p     360p     480p
3:8     117x312  196x522  294x784  392x1046
9:21    125x291  210x490  314x732  420x980
12:25   133x277  222x462  332x692  444x925
1:2     135x270  226x452  340x680  452x904
9:17    139x262  232x438  350x662  466x880
27:50   141x260  236x436  352x652  470x870
9:16    144x256  240x426  360x640  480x854
5:8     151x241  252x404  380x608  506x810
2:3     156x234  262x393  392x588  522x784
3:4     166x221  276x368  416x554  554x738
1:1     192x192  320x320  480x480  640x640
4:3     221x165  370x278  554x416  740x555
3:2     235x156  392x262  588x392  784x522
16:9    256x144  426x240  640x360  854x480
17:9    263x139  440x232  660x350  880x466
2:1     271x135  452x226  678x340  906x454
50:27   277x132  462x222  692x332  924x444
"""  # height x width


@dataclass(frozen=True)
class ClipSize:
    """Size of a clip in frames and pixels, and the latent and token sizes that follow from it.

    Raises:
        ValueError: if the number of frames is not 4n + 1, or a side is not positive.
    """

    num_frames: int
    height: int  # pixels
    width: int  # pixels

    def __post_init__(self) -> None:
        check_num_frames(self.num_frames)
        if self.height < 1 or self.width < 1:
            raise ValueError(f"{self.height}x{self.width} is no picture size: give a positive height and width.")

    @property
    def padded(self) -> ClipSize:
        """Size that is generated and decoded: height and width rounded up to multiples of 16."""
        height, width = (round_up(side, PIXEL_MULTIPLE) for side in (self.height, self.width))
        return replace(self, height=height, width=width)

    @property
    def latent_size(self) -> tuple[int, int, int]:
        """Size (T, H, W) of the video latents."""
        padded = self.padded
        steps = (self.num_frames - 1) // FRAMES_PER_STEP + 1
        return steps, padded.height // PIXELS_PER_LATENT, padded.width // PIXELS_PER_LATENT

    @property
    def token_grid(self) -> tuple[int, int, int]:
        """Size (T, H, W) of the grid of video tokens."""
        steps, height, width = self.latent_size
        return steps, height // PATCH, width // PATCH

    @property
    def num_tokens(self) -> int:
        """Number of video tokens, without the audio tokens (see `model.javisdit.codecs.audio_lengths`)."""
        return math.prod(self.token_grid)

    def check_unpadded(self) -> None:
        """Raise ValueError if the decoded clip would be larger than this size."""
        if self.padded != self:
            raise ValueError(
                f"{self.height}x{self.width} pixels do not split into patches: use multiples of {PIXEL_MULTIPLE}, "
                f"such as {self.padded.height}x{self.padded.width}."
            )


def image_size(resolution: str, aspect_ratio: str) -> tuple[int, int]:
    """Return the nominal (height, width) in pixels of a published resolution and aspect ratio: "480p", "9:16".

    Raises:
        ValueError: for an unknown resolution or aspect ratio.
    """
    if resolution not in NOMINAL_PIXELS:
        raise ValueError(f"There is no resolution {resolution!r}: choose one of {', '.join(NOMINAL_PIXELS)}.")
    if aspect_ratio not in ASPECT_RATIOS:
        raise ValueError(
            f"There is no aspect ratio {aspect_ratio!r}: choose one of {', '.join(ASPECT_RATIOS)} (height:width)."
        )
    return _SIZES[resolution, aspect_ratio]


def nearest_num_frames(seconds: float, fps: float = 16.0) -> int:
    """Return the number of frames, 4n + 1, nearest to a duration; of two equally near, the larger one.

    33, 49, 65 and 81 frames are the published 2, 3, 4 and 5 s at 16 fps. The release's names "2s", "4s", ... mean
    51, 102, ... frames, which do not fill whole codec steps; they are a defect and are not supported.

    Raises:
        ValueError: if the duration or the frame rate is not positive.
    """
    if not (seconds > 0 and fps > 0):
        raise ValueError(f"{seconds} s at {fps} frames per second give no clip: give positive numbers.")
    return math.floor((seconds * fps - 1) / FRAMES_PER_STEP + 0.5) * FRAMES_PER_STEP + 1


def codec_latent_size(num_frames: int, height: int, width: int, pixels_per_latent: int) -> tuple[int, int, int]:
    """Return the latent size (T, H, W) for a video codec that turns 4n + 1 frames into n + 1 steps.

    Raises:
        ValueError: if the number of frames is not 4n + 1, or a side does not split into whole latents.
    """
    check_num_frames(num_frames)
    if height % pixels_per_latent or width % pixels_per_latent:
        fitting = "x".join(str(side // pixels_per_latent * pixels_per_latent) for side in (height, width))
        raise ValueError(
            f"{height}x{width} pixels do not split into whole latents of {pixels_per_latent}x{pixels_per_latent}: "
            f"resize or crop the clip to multiples of {pixels_per_latent}, such as {fitting}."
        )
    return (num_frames - 1) // FRAMES_PER_STEP + 1, height // pixels_per_latent, width // pixels_per_latent


def check_num_frames(num_frames: int) -> None:
    """Raise ValueError if the number of frames is not 4n + 1."""
    if num_frames < 1 or num_frames % FRAMES_PER_STEP != 1:
        below = max(num_frames - 1, 0) // FRAMES_PER_STEP * FRAMES_PER_STEP + 1
        raise ValueError(
            f"{num_frames} frames do not fill whole latent steps, which need 4n + 1 frames: "
            f"use {below} or {below + FRAMES_PER_STEP}."
        )


def round_up(value: int, multiple: int) -> int:
    """Return the smallest multiple of `multiple` that is not below `value`."""
    return -(-value // multiple) * multiple


def _parse(table: str) -> dict[tuple[str, str], tuple[int, int]]:
    resolutions, *rows = (line.split() for line in table.strip().splitlines())
    return {
        (resolution, aspect): (int(height), int(width))
        for aspect, *sizes in rows
        for resolution, (height, width) in zip(resolutions, (size.split("x") for size in sizes), strict=True)
    }


_SIZES = _parse(_NOMINAL_SIZES)
ASPECT_RATIOS = tuple(dict.fromkeys(aspect for _, aspect in _SIZES))
