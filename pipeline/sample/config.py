"""The settings of `python -m pipeline.sample`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.storage import StoragePath
from jobs.stage import WorkerConfig, setting


@dataclass(frozen=True, kw_only=True)
class SampleConfig(WorkerConfig):
    """Settings of `python -m pipeline.sample`. None leaves a value to the model's own default."""

    prompts: StoragePath = field(
        metadata={"help": "Prompts table: CSV, JSONL or Parquet; its paths are relative to its folder."}
    )
    output_dir: StoragePath = field(metadata={"help": "Folder of the run; candidates/ is written in it."})
    model: str = setting("tiny", "Preset name, model or adapter folder, or package.module:callable.")
    num_candidates: int = setting(3, "Candidates per prompt.")
    include_ground_truth: bool = setting(True, "Add each prompt's real clip (video_path), in the candidates' form.")
    seed: int = setting(0, "Run seed; a candidate's seed is a function of it, the prompt_id and the index.")
    num_frames: int | None = setting(None, "Frames per clip.")
    height: int | None = setting(None, "Pixels.")
    width: int | None = setting(None, "Pixels.")
    num_inference_steps: int | None = setting(None, "Solver steps.")
    guidance_scale: float | None = setting(None, "Classifier-free guidance.")
    negative_prompt: str | None = setting(None, "Text to steer away from.")
    shift_scale: float | None = setting(None, "Shift of the timesteps towards noise.")
    dtype: str = setting("float32", "Type of the network's weights, e.g. bfloat16.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_candidates < 1:
            raise ValueError(f"num_candidates is {self.num_candidates}, but must be at least 1.")

    @property
    def options(self) -> dict[str, Any]:
        """Return the arguments of the generator other than prompts and seeds."""
        names = ("num_frames", "height", "width", "num_inference_steps", "guidance_scale", "negative_prompt")
        # Left out unless it is set, because a user's own generator may not know it.
        shift = {} if self.shift_scale is None else {"shift_scale": self.shift_scale}
        return {name: getattr(self, name) for name in names} | shift

    @property
    def folder(self) -> Path:
        return self.output_dir / "candidates"
