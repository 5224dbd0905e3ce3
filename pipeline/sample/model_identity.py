"""The identity and the lineage of the weights that a run samples from, read from files without importing torch."""

from __future__ import annotations

import json
from pathlib import Path

from core.file_identity import files_identity
from core.lineage import LINEAGE_NAME, UNKNOWN, Lineage
from model.lineage import model_lineage
from pipeline.sample.actor import is_dotted_path

_FILES = ("*.safetensors", "*.bin", "*.pth", "*.json")
# Files of the training that wrote the weights; the first two contain times.
_NOT_WEIGHTS = {"summary.json", "trainer_state.json", LINEAGE_NAME}


def model_identity(spec: str) -> str:
    """Return a short text that changes with the weights, so that a retrained model in the same folder is noticed.

    Args:
        spec: the model, as for `load_generator`. A dotted path is its own identity.

    Raises:
        ValueError: `spec` is neither a folder with weights nor a preset.
    """
    if is_dotted_path(spec):
        return spec
    folder = _folder(spec)
    files = sorted({path for root in _roots(folder) for path in _weights(root)})
    if not files:
        raise ValueError(
            f"model {spec!r}: {folder} holds no weights. Give a folder written by save_pretrained or by training."
        )
    adapter = folder / "adapter_config.json"
    base = json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"] if adapter.is_file() else None
    return f"weights {files_identity(files, folder, '' if base is None else model_identity(base))}"


def lineage_of(spec: str) -> Lineage:
    """Return the preference trainings of a model, given as for `load_generator`; UNKNOWN for a dotted path."""
    return UNKNOWN if is_dotted_path(spec) else model_lineage(spec)


def _folder(spec: str) -> Path:
    if Path(spec).is_dir():
        return Path(spec)
    from model.presets import preset_path

    return preset_path(spec)


def _roots(folder: Path) -> list[Path]:
    """Return the folders of the model's parts if `pipeline.json` names them (other weights may be beside them)."""
    pipeline = folder / "pipeline.json"
    parts = json.loads(pipeline.read_text(encoding="utf-8")).get("components") if pipeline.is_file() else None
    return [pipeline, *(folder / part for part in parts.values())] if parts else [folder]


def _weights(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    return [path for pattern in _FILES for path in root.rglob(pattern) if _belongs(path.relative_to(root))]


def _belongs(path: Path) -> bool:
    return path.name not in _NOT_WEIGHTS and not any(part.startswith("checkpoint-") for part in path.parts)
