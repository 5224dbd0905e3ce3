"""The settings of `python -m pipeline.score`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from core.storage import StoragePath
from jobs.stage import setting
from pipeline.score.settings import RewardConfig


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(RewardConfig):
    """Settings of `python -m pipeline.score`."""

    output_dir: StoragePath = field(
        metadata={"help": "Folder of the run; candidates/ is read, scores/ is written in it."}
    )
    dtype: str = setting("float32", "Type of the reward networks' weights, e.g. bfloat16.")

    @property
    def folder(self) -> Path:
        return self.output_dir / "scores"
