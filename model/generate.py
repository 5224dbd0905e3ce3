"""Generate one clip from a prompt: `python -m model.generate --prompt "..." --output clip.mp4`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from media.cli import echo, parse_config


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """Settings of `python -m model.generate`. None leaves a value to the model's own default."""

    prompt: str = field(metadata={"help": "What to see and hear."})
    output: Path = field(metadata={"help": "The .mp4 to write; the lossless sound goes beside it as .wav."})
    model: str = field(default="tiny", metadata={"help": "A preset's name, a model folder or an adapter folder."})
    seed: int = field(default=0, metadata={"help": "Seed of the noise: the same seed gives the same clip."})
    num_frames: int | None = field(default=None, metadata={"help": "Frames to generate, 4n + 1."})
    height: int | None = field(default=None, metadata={"help": "Pixels, a multiple of 16."})
    width: int | None = field(default=None, metadata={"help": "Pixels, a multiple of 16."})
    num_inference_steps: int | None = field(default=None, metadata={"help": "Euler steps."})
    guidance_scale: float | None = field(default=None, metadata={"help": "Classifier-free guidance; 1 turns it off."})
    negative_prompt: str | None = field(default=None, metadata={"help": "What to steer away from."})
    device: str = field(default="cpu", metadata={"help": "A torch device, such as cuda."})

    def __post_init__(self) -> None:
        if self.output.suffix != ".mp4":
            raise ValueError(f"output is {str(self.output)!r}: clips are written as .mp4, so give a name that ends so.")


def main(argv: Sequence[str] | None = None) -> int:
    config = parse_config(GenerateConfig, argv)
    from media import write_clip
    from model.pipeline import JointAVPipeline

    pipeline = JointAVPipeline.from_pretrained(config.model, device=config.device)
    [clip] = pipeline(
        [config.prompt],
        seeds=[config.seed],
        num_frames=config.num_frames,
        height=config.height,
        width=config.width,
        num_inference_steps=config.num_inference_steps,
        guidance_scale=config.guidance_scale,
        negative_prompt=config.negative_prompt,
    )
    config.output.parent.mkdir(parents=True, exist_ok=True)
    write_clip(clip, config.output)
    echo(f"{config.output}: {clip.num_frames} frames of {clip.height}x{clip.width}, {clip.duration_s:.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
