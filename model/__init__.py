"""Joint audio-video generators: the JavisDiT++ network, its flow, codecs, text encoder, pipeline, data and training."""

from __future__ import annotations

from core.lazy import lazy_names

_HOMES = {
    "AVLatents": "model.javisdit.codecs.latents",
    "ClipSize": "model.javisdit.network.sizes",
    "GenerationDefaults": "model.javisdit.pipeline",
    "JointAVPipeline": "model.javisdit.pipeline",
    "JointDiT": "model.javisdit.network.transformer",
    "JointDiTConfig": "model.javisdit.network.config",
    "JointOutput": "model.javisdit.network.transformer",
    "audio_position_ids": "model.javisdit.network.positions",
    "from_published": "model.javisdit.weights.checkpoints",
    "load_javisdit": "model.javisdit.weights.checkpoints",
    "load_transformer": "model.javisdit.weights.folders",
    "load_wan": "model.javisdit.weights.checkpoints",
    "preset_path": "model.presets",
    "save_published": "model.javisdit.weights.checkpoints",
    "video_position_ids": "model.javisdit.network.positions",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
