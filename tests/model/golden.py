"""Golden tensors of the published network: the subset in tests/golden, or all of them where `../shared` is there."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from model.transformer import JointDiT, JointDiTConfig

ROOT = Path(__file__).parents[2]
FOLDERS = (ROOT.parent / "shared" / "golden", ROOT / "tests" / "golden")

RULES = {  # the release's names -> ours
    "interleave_offset": "ta_rope",
    "vanilla": "vanilla",
    "interpolate": "interpolate",
    "interleave": "interleave",
}
MODALITIES = {"t2av": ("video", "audio"), "t2v": ("video",), "t2a": ("audio",)}


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
        self.metadata: dict[str, Any] = {key: json.loads(v) for key, v in (self._file.metadata() or {}).items()}

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._file.get_tensor(name)

    def get(self, name: str) -> torch.Tensor | None:
        return self[name] if name in self.names else None


def published_model(golden: Golden) -> JointDiT:
    """The network of a golden file, from its published config and weights."""
    published = golden.metadata["config"]
    sizes = ("dim", "ffn_dim", "num_heads", "num_layers", "text_dim", "freq_dim", "text_len")
    config = JointDiTConfig(
        modalities=MODALITIES[published["model_type"]],
        audio_positions=RULES[published.get("audio_pe_type", "interleave_offset")],
        **{name: published[name] for name in sizes},
    )
    model = JointDiT(config)
    model.load_state_dict(
        {name.removeprefix("weights."): golden[name] for name in golden.names if name.startswith("weights.")}
    )
    return model.eval()
