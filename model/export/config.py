"""Settings of `python -m model.export`. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Layout = Literal["pipeline", "release"]
Dtype = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Settings of `python -m model.export`."""

    model: str = field(metadata={"help": "a run's folder, its ema/ folder, or any other model"})
    output: Path = field(metadata={"help": "folder to write"})
    layout: Layout = field(
        default="pipeline",
        metadata={"help": "pipeline (safetensors), or release (a model/ folder that the published code loads)"},
    )
    dtype: Dtype = field(default="float32", metadata={"help": "dtype of the stored network; the release has bfloat16"})
    merge: bool = field(default=True, metadata={"help": "with layout release: false keeps the adapter in lora/"})
    adapter_scale: float = field(
        default=1.0,
        metadata={
            "help": "factor on the update of the last adapter; above 1 extrapolates preference training (ExPO, arXiv "
            "2404.16792): choose the value on captions that you do not report results on"
        },
    )
    all_parts: bool = field(
        default=False,
        metadata={"help": "with layout pipeline: include codecs and text encoder, so that the folder is complete"},
    )
    push_to_hub: str | None = field(default=None, metadata={"help": "owner/name of the hub repository to upload to"})
    private: bool = field(default=False, metadata={"help": "if the hub repository is new, make it private"})

    def __post_init__(self) -> None:
        if self.layout == "release" and self.all_parts:
            raise ValueError(
                "all_parts is true, but layout 'release' contains only the network: turn all_parts off, or use layout "
                "'pipeline'."
            )
        if self.layout == "pipeline" and not self.merge:
            raise ValueError(
                "merge is false, but layout 'pipeline' has no place for an adapter: use layout 'release', or use the "
                "adapter's own folder, which is a model already."
            )
        if not 0 < self.adapter_scale < math.inf:
            raise ValueError(
                f"adapter_scale is {self.adapter_scale}: give a number above 0; 1 is the adapter as trained."
            )
        if self.push_to_hub is not None and self.push_to_hub.count("/") != 1:
            raise ValueError(
                f"push_to_hub is {self.push_to_hub!r}, but must be owner/name: give the name of a hub repository."
            )
        if self.output.exists() and any(self.output.iterdir()):
            raise ValueError(f"{self.output} is not empty: choose another folder, or delete this one.")
