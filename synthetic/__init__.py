"""Bounce: a procedural world of clips with sound. Scenes are rendered and captioned, and any clip can be measured."""

from __future__ import annotations

from synthetic.captions import CaptionAttributes, caption, parse_caption
from synthetic.measure import Measurement, measure
from synthetic.render import render_audio, render_clip, render_video
from synthetic.scene import HELD_OUT_SEED_START, Scene, scene_from_seed

__all__ = [
    "HELD_OUT_SEED_START",
    "CaptionAttributes",
    "Measurement",
    "Scene",
    "caption",
    "measure",
    "parse_caption",
    "render_audio",
    "render_clip",
    "render_video",
    "scene_from_seed",
]
