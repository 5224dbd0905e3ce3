"""Generate one clip from a prompt: `python -m model.generate --prompt "..." --output clip.mp4`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from core.cli import echo, parse_config
from model.javisdit.network.sizes import (
    NOMINAL_PIXELS,
    PIXEL_MULTIPLE,
    ClipSize,
    check_num_frames,
    image_size,
    nearest_num_frames,
    round_up,
)


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """Settings of `python -m model.generate`. None leaves a value to the model's own default."""

    prompt: str = field(metadata={"help": "What to see and hear."})
    output: Path = field(metadata={"help": "The .mp4 to write; the lossless sound goes beside it as .wav."})
    model: str = field(default="tiny", metadata={"help": "A preset's name, a model folder or an adapter folder."})
    seed: int = field(default=0, metadata={"help": "Seed of the noise: the same seed gives the same clip."})
    num_frames: int | None = field(default=None, metadata={"help": "Frames to generate, 4n + 1."})
    duration_s: float | None = field(default=None, metadata={"help": "In place of num_frames: seconds at 16 fps."})
    height: int | None = field(default=None, metadata={"help": "Pixels, a multiple of 16."})
    width: int | None = field(default=None, metadata={"help": "Pixels, a multiple of 16."})
    resolution: str | None = field(
        default=None,
        metadata={"help": f"In place of height and width: {', '.join(NOMINAL_PIXELS)}, rounded up to 16 pixels."},
    )
    aspect_ratio: str = field(
        default="9:16", metadata={"help": "With resolution, height:width as in the release: 9:16 is landscape."}
    )
    num_inference_steps: int | None = field(default=None, metadata={"help": "Evaluations of the network."})
    solver: Literal["euler", "unipc", "dpm++"] | None = field(
        default=None, metadata={"help": "euler is the release's; the others need about half the steps."}
    )
    shift_scale: float | None = field(
        default=None, metadata={"help": "Shift of the timesteps towards noise: published sampling 1.0, training 5.0."}
    )
    guidance_scale: float | None = field(default=None, metadata={"help": "Classifier-free guidance; 1 turns it off."})
    negative_prompt: str | None = field(default=None, metadata={"help": "What to steer away from."})
    device: str = field(default="cpu", metadata={"help": "A torch device, such as cuda."})
    dtype: Literal["float32", "bfloat16"] = field(
        default="float32", metadata={"help": "Of the network and the text encoder; bfloat16 on GPUs, as published."}
    )
    offload: bool = field(
        default=False, metadata={"help": "Keep each part on the CPU while it does not work: least GPU memory."}
    )

    def __post_init__(self) -> None:
        if self.output.suffix != ".mp4":
            raise ValueError(f"output is {str(self.output)!r}: clips are written as .mp4, so give a name that ends so.")
        if self.resolution is not None and (self.height is not None or self.width is not None):
            raise ValueError("resolution and height or width both give the size: keep one of them.")
        if self.duration_s is not None and self.num_frames is not None:
            raise ValueError("duration_s and num_frames both give the length: keep one of them.")
        if self.clip_length is not None:
            check_num_frames(self.clip_length)
        for name, side in zip(("height", "width"), self.picture_size, strict=True):
            if side is not None and (side < 1 or side % PIXEL_MULTIPLE):
                nearest = max(round_up(side, PIXEL_MULTIPLE), PIXEL_MULTIPLE)
                raise ValueError(
                    f"{name} is {side}, but pictures are made of patches of {PIXEL_MULTIPLE}: use {nearest}."
                )

    @property
    def clip_length(self) -> int | None:
        """Frames to generate."""
        return self.num_frames if self.duration_s is None else nearest_num_frames(self.duration_s)

    @property
    def picture_size(self) -> tuple[int | None, int | None]:
        """(height, width) in pixels."""
        if self.resolution is None:
            return self.height, self.width
        padded = ClipSize(1, *image_size(self.resolution, self.aspect_ratio)).padded
        return padded.height, padded.width


def main(argv: Sequence[str] | None = None) -> int:
    """The command: exit status 0, or 2 on a mistake in the input."""
    config = parse_config(GenerateConfig, argv)
    try:
        generate(config)
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def generate(config: GenerateConfig) -> None:
    """Generates the clip and writes its files.

    Raises:
        ValueError: when the model is none, or cannot make such a clip.
    """
    import torch  # late: `--help` must not wait for it

    from media import write_clip
    from model.javisdit.pipeline import JointAVPipeline

    pipeline = JointAVPipeline.from_pretrained(
        config.model, config.device, getattr(torch, config.dtype), offload=config.offload
    )
    height, width = config.picture_size
    [clip] = pipeline(
        [config.prompt],
        seeds=[config.seed],
        num_frames=config.clip_length,
        height=height,
        width=width,
        num_inference_steps=config.num_inference_steps,
        guidance_scale=config.guidance_scale,
        negative_prompt=config.negative_prompt,
        solver=config.solver,
        shift_scale=config.shift_scale,
        progress=True,
    )
    config.output.parent.mkdir(parents=True, exist_ok=True)
    write_clip(clip, config.output)
    echo(f"{config.output}: {clip.num_frames} frames of {clip.height}x{clip.width}, {clip.duration_s:.2f} s")


if __name__ == "__main__":
    sys.exit(main())
