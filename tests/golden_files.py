"""Golden files of the published tools and networks: those of `../shared` where it is there, else tests/golden.

tests/golden holds compact copies, some of them packed (`NAME.xz`); tests/golden/README.md says how they were cut.
"""

from __future__ import annotations

import json
import lzma
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
COMPACT = ROOT / "tests" / "golden"
FOLDERS = (SHARED / "golden", SHARED, COMPACT)  # SHARED for names that begin with upstream/ or clips/
LEFT_OUT = {  # golden files that tests name and a clone lacks -> why
    "media/wan21_vae_reduced.safetensors": "5 MB even when packed, nearly all of it random weights",
    "media/audio_codec_reduced.safetensors": "2 MB even when packed, nearly all of it random weights",
}
_unpacked = tempfile.TemporaryDirectory(prefix="golden-")


def golden_path(name: str) -> Path:
    """Return the golden file of this name, unpacked if it is packed; skip the test if a clone leaves that file out."""
    for folder in FOLDERS:
        if (folder / name).exists():
            return folder / name
    if (COMPACT / f"{name}.xz").exists():
        return _unpack(name)
    assert name in LEFT_OUT, f"{name} is not in tests/golden: add it, or name it in LEFT_OUT with the reason"
    pytest.skip(f"{name} is not in the clone ({LEFT_OUT[name]}), and there is no ../shared/golden")


def real_clips(pattern: str = "*.mp4") -> list[Path]:
    """Return clips of other makers and cameras from `../shared/clips`, or files of other encoders in tests/golden."""
    folder = next(folder for folder in (SHARED / "clips", COMPACT / "clips") if folder.is_dir())
    return sorted(folder.glob(pattern))


@cache
def _unpack(name: str) -> Path:
    path = Path(_unpacked.name) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(lzma.decompress((COMPACT / f"{name}.xz").read_bytes()))
    return path


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
