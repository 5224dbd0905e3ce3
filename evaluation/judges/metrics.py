"""The metrics by name, in the order of the paper's tables, each with its definition, judge and output."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Group = Literal["quality", "text", "av", "sync", "verifiable"]
Distance = Literal["frechet", "kernel"]

GROUP_TITLES: dict[Group, str] = {
    "quality": "Quality",
    "text": "Text consistency",
    "av": "Audio-video consistency",
    "sync": "Audio-video synchrony",
    "verifiable": "Bounce, measured",
}


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One column of a table of results.

    Attributes:
        judge: name in `rewards.registry.BUILTIN_JUDGES` of the judge that computes its values.
        output: the output of the judge that it is computed from.
        distance: compares the features of all samples with those of ground truth; None: a score per sample, averaged.
        scale: factor on a distance.
        definition: one sentence. Source: where it stands in the facts of the published benchmark.
    """

    name: str
    title: str
    group: Group
    higher_is_better: bool
    judge: str
    output: str
    definition: str
    distance: Distance | None = None
    scale: float = 1.0

    @property
    def heading(self) -> str:
        return f"{self.title} {'↑' if self.higher_is_better else '↓'}"


def _distance(name: str, title: str, judge: str, distance: Distance, definition: str, scale: float = 1.0) -> Metric:
    return Metric(
        name=name,
        title=title,
        group="quality",
        higher_is_better=False,
        judge=judge,
        output="clap_audio" if judge == "clap" else judge,
        definition=definition,
        distance=distance,
        scale=scale,
    )


def _score(name: str, title: str, group: Group, judge: str, definition: str, higher: bool = True) -> Metric:
    return Metric(
        name=name,
        title=title,
        group=group,
        higher_is_better=higher,
        judge=judge,
        output=name,
        definition=definition,
    )


METRICS: tuple[Metric, ...] = (
    _distance("fvd", "FVD", "i3d", "frechet", "Frechet distance of I3D's Kinetics-400 logits, 24 frames per clip"),
    _distance("kvd", "KVD", "i3d", "kernel", "unbiased squared MMD of the same features, kernel (x.y / d + 1)^3"),
    _distance("fad", "FAD", "audioclip", "frechet", "Frechet distance of AudioCLIP's audio embeddings, x 10000", 1e4),
    _distance("fad_clap", "FAD-CLAP", "clap", "frechet", "Frechet distance of CLAP's audio embeddings"),
    _score("visual_quality", "VQ", "quality", "videoalign", "VideoAlign's visual quality, not normalised"),
    _score("motion_quality", "MQ", "quality", "videoalign", "VideoAlign's motion quality, not normalised"),
    _score("audio_quality", "AQ", "quality", "audiobox", "mean of AudioBox's four axes"),
    _score("ib_tv", "TV-IB", "text", "imagebind", "ImageBind cosine of caption and picture"),
    _score("ib_ta", "TA-IB", "text", "imagebind", "ImageBind cosine of caption and sound"),
    _score("clip_score", "CLIP", "text", "clip", "CLIP ViT-B/32 cosine of caption and frame, mean over 48 frames"),
    _score("clap_score", "CLAP", "text", "clap", "CLAP cosine of caption and sound at 48 kHz"),
    _score("ib_av", "AV-IB", "av", "imagebind", "ImageBind cosine of picture and sound"),
    _score("cavp_score", "CAVP", "av", "cavp", "Diff-Foley's CAVP: mean cosine of picture and sound, 4 times a second"),
    _score("avh_score", "AVHScore", "av", "javis", "mean over frames of ImageBind's cosine of frame and whole sound"),
    _score("javis_score", "JavisScore", "sync", "javis", "windows of 2 s: mean of the 40 % lowest cosines of a frame"),
    _score("av_align", "AV-Align", "sync", "av_align", "peaks of onset strength that meet peaks of optical flow"),
    _score("desync", "DeSync", "sync", "synchformer", "Synchformer's offset of sound and picture, seconds", False),
)

# Measurements of Bounce without any network: the same columns on another scale, so under other names.
VERIFIABLE: tuple[Metric, ...] = tuple(
    Metric(
        name=f"bounce_{column}",
        title=f"Bounce {column.replace('_', ' ')}",
        group="verifiable",
        higher_is_better=column != "desync",
        judge="verifiable",
        output=column,
        definition=definition,
    )
    for column, definition in (
        ("visual_quality", "sharpness, steadiness, a ball in sight"),
        ("motion_quality", "one rigid ball in free fall"),
        ("audio_quality", "tone, strikes, noise floor and clipping"),
        ("ib_tv", "agreement of caption and picture"),
        ("ib_ta", "agreement of caption and sound"),
        ("ib_av", "agreement of impacts seen and heard"),
        ("desync", "mean offset of impacts seen and heard, seconds; 2 when nothing matches"),
    )
)

_BY_NAME = {metric.name: metric for metric in (*METRICS, *VERIFIABLE)}


def choose_metrics(names: Iterable[str]) -> list[Metric]:
    """Return the metrics of names and groups, in the order of the table, each once.

    Groups are "all" (the published metrics), "quality", "text", "av", "sync" and "verifiable".

    Raises:
        ValueError: there is no such metric or group, or none is named.
    """
    chosen: set[str] = set()
    for name in names:
        found = {one.name for one in _BY_NAME.values() if one.group == name}
        if name == "all":
            found = {one.name for one in METRICS}
        if not found and name not in _BY_NAME:
            known = ["all", *GROUP_TITLES, *_BY_NAME]
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {close[0]!r}? " if close else ""
            raise ValueError(f"There is no metric or group {name!r}. {hint}Available: {', '.join(known)}.")
        chosen |= found or {name}
    if not chosen:
        raise ValueError("metrics is empty, so there is nothing to compute. Name some, such as all.")
    return [metric for metric in _BY_NAME.values() if metric.name in chosen]
