"""Bounce: a procedural world of clips with sound. Scenes are rendered and captioned, and any clip can be measured."""

from __future__ import annotations

from core.lazy import lazy_names

_HOMES = {
    "HELD_OUT_SEED_START": "synthetic.scene",
    "CaptionAttributes": "synthetic.captions",
    "Measurement": "synthetic.measure",
    "Scene": "synthetic.scene",
    "caption": "synthetic.captions",
    "measure_clip": "synthetic.measure",
    "parse_caption": "synthetic.captions",
    "render_audio": "synthetic.render",
    "render_clip": "synthetic.render",
    "render_video": "synthetic.render",
    "scene_from_seed": "synthetic.scene",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
