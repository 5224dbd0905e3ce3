"""The counter-metrics by name, in the order of the tables, each with its unit and definition."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CounterMetric:
    """A property of a clip that no reward asks for; it has no better and no worse direction.

    Attributes:
        more, less: the words for a rise and a fall, as in "pays for `more`".
    """

    name: str
    unit: str
    definition: str
    more: str
    less: str
    digits: int = 3  # after the decimal point, in texts


COUNTERS: tuple[CounterMetric, ...] = (
    CounterMetric(
        "motion",
        "heights/s",
        "change between frames over edge strength: the mean speed of edges, in heights of the picture per second",
        "more movement",
        "less movement",
    ),
    CounterMetric("brightness", "0..255", "mean luma", "brighter pictures", "darker pictures", 1),
    CounterMetric(
        "saturation", "0..1", "(maximum - minimum) / maximum of the colours", "stronger colours", "paler colours"
    ),
    CounterMetric(
        "video_latent_norm", "RMS", "root mean square of the video latents", "larger latents", "smaller latents"
    ),
    CounterMetric(
        "audio_latent_norm", "RMS", "root mean square of the audio latents", "larger latents", "smaller latents"
    ),
    CounterMetric("loudness", "dB", "RMS level of the sound, at least -70 dB", "louder sound", "quieter sound", 2),
    CounterMetric(
        "silence",
        "share",
        "windows of 20 ms that are 40 dB below the loudest one, or below -60 dB",
        "more silence",
        "less silence",
    ),
    CounterMetric("clipping", "share", "samples at full scale, from 0.99 on", "more clipping", "less clipping", 4),
    CounterMetric("onsets_heard", "count", "onsets of the sound", "more onsets heard", "fewer onsets heard", 2),
    CounterMetric(
        "onsets_unseen",
        "count",
        "onsets of the sound less onsets seen: impacts, or sudden changes of movement",
        "more onsets heard than seen",
        "fewer onsets heard than seen",
        2,
    ),
    CounterMetric(
        "av_offset",
        "s",
        "median over matched onsets of time heard less time seen: positive when the sound is late",
        "later sound",
        "earlier sound",
    ),
    CounterMetric(
        "picture_diversity",
        "0..255",
        "mean distance to the other samples of the prompt, RMS over 8 times, 8 x 8 cells and 3 colours",
        "pictures unlike the others of their prompt",
        "pictures like the others of their prompt",
        2,
    ),
    CounterMetric(
        "sound_diversity",
        "dB",
        "mean distance to the other samples of the prompt, RMS over 16 times and 24 mel bands",
        "sounds unlike the others of their prompt",
        "sounds like the others of their prompt",
        2,
    ),
)

BY_NAME = {counter.name: counter for counter in COUNTERS}
DIVERSITY = ("picture_diversity", "sound_diversity")  # from all samples of a prompt; the others are of one clip
OF_A_CLIP = tuple(counter.name for counter in COUNTERS if counter.name not in DIVERSITY)
