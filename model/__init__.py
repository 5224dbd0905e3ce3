"""JavisDiT++: the joint audio-video transformer, its flow, codecs, text encoder and pipeline."""

from importlib import import_module
from typing import Any

# Resolved on first use: `import model` must not cost the seconds that torch and transformers take.
_EXPORTS = {
    "AVLatents": "model.latents",
    "ClipSize": "model.sizes",
    "GenerationDefaults": "model.pipeline",
    "JointAVPipeline": "model.pipeline",
    "JointDiT": "model.transformer",
    "JointDiTConfig": "model.config",
    "JointOutput": "model.transformer",
    "from_published": "model.checkpoints",
    "load_javisdit": "model.checkpoints",
    "load_transformer": "model.locate",
    "load_wan": "model.checkpoints",
    "preset_path": "model.presets",
    "save_published": "model.checkpoints",
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
