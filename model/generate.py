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
    """Settings of `python -m model.generate`. None means the model's own default."""

    prompt: str = field(metadata={"help": "Description of the picture and the sound."})
    output: Path = field(metadata={"help": "The .mp4 file to write; the lossless sound is written beside it as .wav."})
    model: str = field(default="tiny", metadata={"help": "A preset's name, a model folder or an adapter folder."})
    seed: int = field(default=0, metadata={"help": "Seed of the noise: the same seed gives the same clip."})
    num_frames: int | None = field(default=None, metadata={"help": "Frames to generate, 4n + 1."})
    duration_s: float | None = field(default=None, metadata={"help": "Instead of num_frames: seconds at 16 fps."})
    height: int | None = field(default=None, metadata={"help": "Pixels, a multiple of 16."})
    width: int | None = field(default=None, metadata={"help": "Pixels, a multiple of 16."})
    resolution: str | None = field(
        default=None,
        metadata={"help": f"Instead of height and width: {', '.join(NOMINAL_PIXELS)}, rounded up to 16 pixels."},
    )
    aspect_ratio: str = field(
        default="9:16", metadata={"help": "With resolution: height:width as in the release, where 9:16 is landscape."}
    )
    num_inference_steps: int | None = field(default=None, metadata={"help": "Number of solver steps."})
    solver: Literal["euler", "unipc", "dpm++"] | None = field(
        default=None, metadata={"help": "euler is the release's solver; the others need about half the steps."}
    )
    shift_scale: float | None = field(
        default=None, metadata={"help": "Shift of the timesteps towards noise: published sampling 1.0, training 5.0."}
    )
    guidance_scale: float | None = field(
        default=None, metadata={"help": "Scale of classifier-free guidance; 1 turns it off."}
    )
    negative_prompt: str | None = field(default=None, metadata={"help": "Text that guidance moves away from."})
    device: str = field(default="cpu", metadata={"help": "A torch device, for example cuda."})
    dtype: Literal["float32", "bfloat16"] = field(
        default="float32",
        metadata={"help": "Dtype of the network and the text encoder; published: bfloat16 on GPUs."},
    )
    offload: bool = field(
        default=False, metadata={"help": "Keep each part on the CPU while it is not in use, to save GPU memory."}
    )

    def __post_init__(self) -> None:
        if self.output.suffix != ".mp4":
            raise ValueError(
                f"output is {str(self.output)!r}, but clips are written as .mp4: give a name that ends in .mp4."
            )
        if self.resolution is not None and (self.height is not None or self.width is not None):
            raise ValueError("resolution was given with height or width, and both set the size: give only one.")
        if self.duration_s is not None and self.num_frames is not None:
            raise ValueError("duration_s was given with num_frames, and both set the length: give only one.")
        if self.clip_length is not None:
            check_num_frames(self.clip_length)
        for name, side in zip(("height", "width"), self.picture_size, strict=True):
            if side is not None and (side < 1 or side % PIXEL_MULTIPLE):
                nearest = max(round_up(side, PIXEL_MULTIPLE), PIXEL_MULTIPLE)
                raise ValueError(
                    f"{name} is {side}, but must be a multiple of the patch size, {PIXEL_MULTIPLE}: use {nearest}."
                )

    @property
    def clip_length(self) -> int | None:
        """Number of frames to generate; None for the model's default."""
        return self.num_frames if self.duration_s is None else nearest_num_frames(self.duration_s)

    @property
    def picture_size(self) -> tuple[int | None, int | None]:
        """Size (height, width) in pixels; None for the model's default."""
        if self.resolution is None:
            return self.height, self.width
        padded = ClipSize(1, *image_size(self.resolution, self.aspect_ratio)).padded
        return padded.height, padded.width


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0 on success, 2 on wrong input."""
    config = parse_config(GenerateConfig, argv)
    try:
        generate(config)
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def generate(config: GenerateConfig) -> None:
    """Generate the clip and write its files.

    Raises:
        ValueError: if there is no model, or it cannot generate a clip of this size.
    """
    import torch  # imported late, so that `--help` is fast

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
