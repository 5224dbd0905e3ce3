"""JavisDiT++: the joint audio-video transformer, its flow, codecs, text encoder and pipeline."""

from importlib import import_module
from typing import Any

# Resolved on first use: `import model` must not cost the seconds that torch and transformers take.
_EXPORTS = {
    "AVLatents": "model.latents",
    "GenerationDefaults": "model.pipeline",
    "JointAVPipeline": "model.pipeline",
    "JointDiT": "model.transformer",
    "JointDiTConfig": "model.transformer",
    "JointOutput": "model.transformer",
    "load_transformer": "model.pipeline",
    "preset_path": "model.presets",
}
__all__ = [
    "AVLatents",
    "GenerationDefaults",
    "JointAVPipeline",
    "JointDiT",
    "JointDiTConfig",
    "JointOutput",
    "load_transformer",
    "preset_path",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'model' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)
