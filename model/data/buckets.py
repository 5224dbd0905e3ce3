"""Buckets: the sizes and lengths to which clips are cut, and the assignment of clips to them in an epoch.

A clip goes to the largest resolution and length that it fills, unless a draw rejects it, so that small buckets also get
long and large clips. Draws are a function of the row and the epoch, as published.
Source: docs/upstream/data.md, section 2.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from model.javisdit.network.sizes import (
    ASPECT_RATIOS,
    NOMINAL_PIXELS,
    PIXEL_MULTIPLE,
    check_num_frames,
    image_size,
    round_up,
)

SAMPLER_SEED = 42
MIN_PIXELS = 0.8  # share of a resolution's pixels that a clip needs: smaller clips would be enlarged too much

_EXPLICIT = re.compile(r"([1-9]\d*)x([1-9]\d*)")
_EXAMPLE = "give resolutions with lengths and batch sizes, such as {240p: {33: {batch_size: 12}}}"


class Bucket(NamedTuple):
    """Size and length shared by the clips of a batch."""

    resolution: str  # "480p", or a custom size, height x width: "64x64"
    num_frames: int
    aspect: str  # height / width with two decimals: "0.56"


@dataclass(frozen=True)
class BucketRule:
    """Rule for the assignment of clips to a resolution and length.

    Attributes:
        batch_size: clips in a batch of one device; pairs in preference training.
        keep: share of the fitting clips that the bucket keeps; the others go to the next resolution.
        time: chance that this length is considered for a clip; None: always.
    """

    batch_size: int
    keep: float = 1.0
    time: float | None = None


class BucketTable:
    """The buckets of a training stage, from most to fewest pixels and frames."""

    def __init__(self, rules: Mapping[str, Mapping[int, BucketRule]], pixel_multiple: int = PIXEL_MULTIPLE) -> None:
        """Create the table from rules by resolution and number of frames.

        Args:
            rules: resolution -> number of frames -> rule.
            pixel_multiple: heights and widths are rounded up to multiples of it (published: 1 in stage 1, then 16).

        Raises:
            ValueError: no buckets, an unknown resolution, or frames that are not 4n + 1.
        """
        for resolution, lengths in rules.items():
            _check_resolution(resolution)
            for num_frames in lengths:
                _check_length(resolution, num_frames)
        self.pixel_multiple = pixel_multiple
        self._rules = {
            resolution: dict(sorted(rules[resolution].items(), reverse=True))
            for resolution in sorted(rules, key=_num_pixels, reverse=True)
        }
        self.num_buckets = sum(1 for _ in self)
        if not self.num_buckets:
            raise ValueError(f"There are no buckets: {_EXAMPLE}.")

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any], pixel_multiple: int = PIXEL_MULTIPLE) -> BucketTable:
        """Read the form of the recipes: `{"240p": {33: {"batch_size": 12, "keep": 1.0, "time": 0.5}}}`.

        A size such as "64x64" in place of a resolution's name makes a single bucket for a length: it accepts clips of
        any shape with at least 0.8 of its pixels.

        Raises:
            ValueError: unknown names, values out of range, or a duplicate length.
        """
        rules = {
            str(resolution): _read_lengths(resolution, lengths)
            for resolution, lengths in _as_table("The bucket table", mapping).items()
        }
        return cls(rules, pixel_multiple)

    def __iter__(self) -> Iterator[Bucket]:
        """Yield every bucket, from most to fewest pixels and frames, then by aspect."""
        for resolution, lengths in self._rules.items():
            for num_frames in lengths:
                yield from (Bucket(resolution, num_frames, aspect) for aspect in _aspects(resolution))

    def row_seed(self, row: int, epoch: int, seed: int = SAMPLER_SEED) -> int:
        """Return the published seed of a row's assignment in an epoch."""
        return seed + epoch + row * self.num_buckets

    def assign(self, num_frames: int, height: int, width: int, seed: int) -> Bucket | None:
        """Return the bucket for a clip of so many frames and pixels; None leaves the clip out of the epoch.

        Args:
            num_frames: length of the clip at the model's frame rate.
            height: of the clip, in pixels.
            width: of the clip, in pixels.
            seed: seed of the draws, from `row_seed`.
        """
        for resolution, lengths in self._rules.items():
            if height * width >= MIN_PIXELS * _num_pixels(resolution):
                found = _draw_length(lengths, num_frames, seed)
                if found is not None:
                    return Bucket(resolution, found, _nearest_aspect(_aspects(resolution), height / width))
            seed += len(lengths)  # every resolution and length has a generator of its own
        return None

    def rule(self, bucket: Bucket) -> BucketRule:
        return self._rules[bucket.resolution][bucket.num_frames]

    def size(self, bucket: Bucket) -> tuple[int, int]:
        """Return the (height, width) in pixels to which clips are resized and cropped."""
        height, width = _explicit_size(bucket.resolution) or image_size(bucket.resolution, ASPECT_KEYS[bucket.aspect])
        return round_up(height, self.pixel_multiple), round_up(width, self.pixel_multiple)


def _draw_length(lengths: Mapping[int, BucketRule], num_frames: int, seed: int) -> int | None:
    """Return the longest length that fits the clip and passes its draws; None when `keep` rejects it or none fits."""
    for index, (length, rule) in enumerate(lengths.items()):
        rng = np.random.default_rng(seed + index)
        if rule.time is not None and rng.random() > rule.time:
            continue
        if num_frames >= length:
            return length if rule.keep >= 1 or rng.random() < rule.keep else None
    return None


def _nearest_aspect(aspects: tuple[str, ...], ratio: float) -> str:
    return min(aspects, key=lambda aspect: abs(float(aspect) - ratio))  # the first of two equally near ones


def _aspect_key(aspect_ratio: str) -> str:
    """Return the key that the release prints for a ratio; its sizes for 50:27 belong to its key 2.08."""
    height, width = (int(side) for side in aspect_ratio.split(":"))
    return "2.08" if aspect_ratio == "50:27" else f"{height / width:.2f}"


def _aspects(resolution: str) -> tuple[str, ...]:
    size = _explicit_size(resolution)
    return tuple(ASPECT_KEYS) if size is None else (f"{size[0] / size[1]:.2f}",)


def _num_pixels(resolution: str) -> int:
    size = _explicit_size(resolution)
    return NOMINAL_PIXELS[resolution] if size is None else size[0] * size[1]


def _explicit_size(resolution: str) -> tuple[int, int] | None:
    """Return the (height, width) of "64x64"; None for the name of a resolution."""
    match = _EXPLICIT.fullmatch(resolution)
    return (int(match[1]), int(match[2])) if match else None


def _check_resolution(resolution: str) -> None:
    if resolution not in NOMINAL_PIXELS and _explicit_size(resolution) is None:
        raise ValueError(
            f"The bucket table has a resolution {resolution!r}, which is unknown: use {', '.join(NOMINAL_PIXELS)}, or "
            "a size as height x width, such as 64x64."
        )


def _check_length(resolution: str, num_frames: int) -> None:
    if num_frames == 1:
        raise ValueError(f"The bucket {resolution}: 1 is for images, which have no sound: use 5 frames or more.")
    try:
        check_num_frames(num_frames)
    except ValueError as error:
        raise ValueError(f"The bucket {resolution}: {num_frames} cannot be encoded. {error}") from error


def _as_table(name: str, value: Any) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"{name} is {value!r}, which holds no buckets: {_EXAMPLE}.")
    return value


def _read_lengths(resolution: str, value: Any) -> dict[int, BucketRule]:
    rules: dict[int, BucketRule] = {}
    keys: dict[int, Any] = {}  # as in the table, where 33 and "33" are two keys for one length
    for key, rule in _as_table(f"The bucket table's {resolution!r}", value).items():
        length = _read_length(resolution, key)
        if length in keys:
            raise ValueError(
                f"The bucket table's {resolution!r} has {keys[length]!r} and {key!r}, which are one length with two "
                "rules: remove one of them."
            )
        keys[length] = key
        rules[length] = _read_rule(f"{resolution}: {key}", rule)
    return rules


def _read_length(resolution: str, length: Any) -> int:
    try:
        return int(str(length))
    except ValueError:
        raise ValueError(
            f"The bucket {resolution}: {length!r} has no length: give a number of frames, such as 33."
        ) from None


def _read_rule(name: str, value: Any) -> BucketRule:
    if isinstance(value, Mapping):
        _check_names(name, value)
    if not isinstance(value, Mapping) or "batch_size" not in value:
        raise ValueError(
            f"The bucket {name} is {value!r}, which lacks the number of clips in a batch: give "
            "{batch_size: 4}, or {batch_size: 4, keep: 1.0, time: 0.5}."
        )
    batch_size = value["batch_size"]
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"The bucket {name} has batch_size {batch_size!r}: give a number of clips, 1 or more.")
    rule = BucketRule(**value)
    for key, chance in (("keep", rule.keep), ("time", 1.0 if rule.time is None else rule.time)):
        if not (isinstance(chance, int | float) and 0 <= chance <= 1):
            raise ValueError(
                f"The bucket {name} has {key} {chance!r}, which is no probability: give a number from 0 to 1."
            )
    return rule


def _check_names(name: str, rule: Mapping[Any, Any]) -> None:
    known = [field.name for field in fields(BucketRule)]
    for key in rule:
        if key not in known:
            nearest = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)[0]
            raise ValueError(
                f"The bucket {name} has {key!r}, which nothing reads: did you mean {nearest!r}? "
                f"Known are {', '.join(known)}."
            )


ASPECT_KEYS = {_aspect_key(aspect_ratio): aspect_ratio for aspect_ratio in ASPECT_RATIOS}  # "0.56" -> "9:16"
