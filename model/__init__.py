"""Joint audio-video generators: the JavisDiT++ network, its flow, codecs, text encoder, pipeline, data and training."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# Resolved on first use, because importing torch and transformers takes seconds.
_EXPORTS = {
    "AVLatents": "model.javisdit.codecs.latents",
    "ClipSize": "model.javisdit.network.sizes",
    "GenerationDefaults": "model.javisdit.pipeline",
    "JointAVPipeline": "model.javisdit.pipeline",
    "JointDiT": "model.javisdit.network.transformer",
    "JointDiTConfig": "model.javisdit.network.config",
    "JointOutput": "model.javisdit.network.transformer",
    "from_published": "model.javisdit.weights.checkpoints",
    "load_javisdit": "model.javisdit.weights.checkpoints",
    "load_transformer": "model.javisdit.weights.folders",
    "load_wan": "model.javisdit.weights.checkpoints",
    "preset_path": "model.presets",
    "save_published": "model.javisdit.weights.checkpoints",
}
__all__ = [
    "AVLatents",
    "ClipSize",
    "GenerationDefaults",
    "JointAVPipeline",
    "JointDiT",
    "JointDiTConfig",
    "JointOutput",
    "from_published",
    "load_javisdit",
    "load_transformer",
    "load_wan",
    "preset_path",
    "save_published",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'model' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)
