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

    model: str = field(metadata={"help": "a run's folder, its ema/, or any other model"})
    output: Path = field(metadata={"help": "folder to write"})
    layout: Layout = field(
        default="pipeline", metadata={"help": "pipeline (safetensors), or release: model/ as published code loads it"}
    )
    dtype: Dtype = field(
        default="float32", metadata={"help": "precision of the stored network; the release has bfloat16"}
    )
    merge: bool = field(default=True, metadata={"help": "with layout release: false keeps the adapter in lora/"})
    adapter_scale: float = field(
        default=1.0,
        metadata={
            "help": "how many times the last adapter is added: above 1 goes on the way that preference training went "
            "(ExPO, arXiv 2404.16792); choose it on captions that you report nothing on"
        },
    )
    all_parts: bool = field(
        default=False,
        metadata={"help": "with layout pipeline: codecs and text encoder too, so that the folder stands alone"},
    )
    push_to_hub: str | None = field(default=None, metadata={"help": "owner/name of a model on the hub to push it to"})
    private: bool = field(default=False, metadata={"help": "make the repository private, where it is new"})

    def __post_init__(self) -> None:
        if self.layout == "release" and self.all_parts:
            raise ValueError("all_parts belongs to layout 'pipeline': the release's has the network alone.")
        if self.layout == "pipeline" and not self.merge:
            raise ValueError("merge false belongs to layout 'release'; the adapter's own folder is a model as it is.")
        if not 0 < self.adapter_scale < math.inf:
            raise ValueError(
                f"adapter_scale is {self.adapter_scale}: give a number above 0; 1 is the adapter as trained."
            )
        if self.push_to_hub is not None and self.push_to_hub.count("/") != 1:
            raise ValueError(f"push_to_hub is {self.push_to_hub!r}, but must be owner/name.")
        if self.output.exists() and any(self.output.iterdir()):
            raise ValueError(f"{self.output} is not empty: choose another folder, or delete this one.")
