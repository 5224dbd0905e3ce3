"""Load transformers' models from fetched folders; an incomplete folder is refused with the names it lacks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Model = TypeVar("Model", bound="PreTrainedModel")

WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # either of them


def require_files(folder: Path, names: Iterable[str], source: str) -> None:
    """Check that a folder holds these files, and weights.

    Args:
        source: the repository that the folder comes from, for the message.

    Raises:
        ValueError: it does not; the message names all that is missing.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file: give the folder that {source} was fetched to.")
    missing = [name for name in names if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in WEIGHTS):
        missing.append(" or ".join(WEIGHTS))
    if missing:
        raise ValueError(f"{folder} lacks {', '.join(missing)}: fetch all files of {source} into it.")


def load_model(kind: type[Model], folder: Path, device: str, dtype: torch.dtype) -> Model:
    """Return the model in a folder, in evaluation mode. transformers alone leaves missing tensors random.

    Raises:
        ValueError: tensors are missing or of another shape, or a file cannot be read.
    """
    from safetensors import SafetensorError

    try:
        loaded: Any = kind.from_pretrained(
            folder, dtype=dtype, local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{folder} cannot be read as a {kind.__name__} ({error}): fetch it again.") from error
    model, found = loaded
    # Mismatches come as (name, shape there, shape wanted). Surplus names are bookkeeping of older versions.
    faults = {"missing": sorted(found["missing_keys"]), "misshapen": sorted(map(str, found["mismatched_keys"]))}
    if any(faults.values()):
        counts = "; ".join(f"{len(names)} {kind_}, such as {names[0]}" for kind_, names in faults.items() if names)
        raise ValueError(f"{folder} does not fit its config.json: {counts}. Fetch the whole folder again.")
    result: Model = model.to(device).eval().requires_grad_(False)
    return result
