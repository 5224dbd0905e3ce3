"""Golden tensors of the published networks: the subset in tests/golden, or all of them where `../shared` is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

ROOT = Path(__file__).parents[1]
FOLDERS = (ROOT.parent / "shared" / "golden", ROOT / "tests" / "golden")


def golden_path(name: str) -> Path:
    for folder in FOLDERS:
        if (folder / name).exists():
            return folder / name
    pytest.skip(f"{name} is not in tests/golden, and there is no ../shared/golden")


class Golden:
    """A safetensors file with its metadata decoded."""

    def __init__(self, name: str) -> None:
        self._file = safe_open(golden_path(name), framework="pt")
        self.names = set(self._file.keys())
        self.metadata = {key: _decoded(value) for key, value in (self._file.metadata() or {}).items()}

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._file.get_tensor(name)

    def get(self, name: str) -> torch.Tensor | None:
        return self[name] if name in self.names else None


def _decoded(value: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError:  # a plain text, such as torch's version
        return value
