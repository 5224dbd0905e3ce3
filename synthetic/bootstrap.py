"""Train the tiny preset from nothing: `python -m synthetic.bootstrap --output model/presets/tiny`.

Text encoder, video codec, audio codec, latents of rendered scenes, joint transformer: each part is kept in `work_dir`
when it is finished, the transformer every 100 steps, so that an interrupted run goes on.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from media.cli import echo, parse_config, save_config
from model.pipeline import GenerationDefaults, JointAVPipeline
from model.text import TextEncoder
from model.tiny_codecs import FrameGroupVideoCodec, MelAudioCodec
from synthetic.bootstrap_codecs import train_audio_codec, train_video_codec
from synthetic.bootstrap_model import encode_scenes, train_transformer
from synthetic.bootstrap_text import TEXT_LEN, train_text_encoder
from synthetic.scene import FPS, HEIGHT, NUM_FRAMES, SAMPLE_RATE, WIDTH

DEFAULTS = GenerationDefaults(
    num_frames=NUM_FRAMES,
    height=HEIGHT,
    width=WIDTH,
    fps=FPS,
    sample_rate=SAMPLE_RATE,
    num_inference_steps=16,
    guidance_scale=3.0,
    shift_scale=12.0,
)


@dataclass(frozen=True, kw_only=True)
class BootstrapConfig:
    """Settings of `python -m synthetic.bootstrap`; the defaults made the shipped preset."""

    output: Path = field(metadata={"help": "folder of the finished preset"})
    work_dir: Path = field(default=Path("runs/bootstrap"), metadata={"help": "folder of the parts and checkpoints"})
    text_steps: int = field(default=400, metadata={"help": "steps of the text encoder"})
    video_codec_steps: int = field(default=650, metadata={"help": "steps of the video codec"})
    audio_codec_steps: int = field(default=400, metadata={"help": "steps of the audio codec"})
    num_scenes: int = field(default=3072, metadata={"help": "scenes whose latents the transformer is trained on"})
    transformer_steps: int = field(default=1900, metadata={"help": "steps of the joint transformer, of 16 scenes"})
    compile_blocks: bool = field(default=True, metadata={"help": "faster steps; needs a C++ compiler"})
    seed: int = field(default=0, metadata={"help": "seed of every part's initial weights and noise"})


def bootstrap(config: BootstrapConfig) -> JointAVPipeline:
    """Trains what is missing and writes the preset, weights in half precision."""
    work = config.work_dir
    work.mkdir(parents=True, exist_ok=True)
    save_config(config, work / "config.yaml")
    if not _is_finished(work / "text_encoder"):
        torch.manual_seed(config.seed)
        train_text_encoder(config.text_steps).save_pretrained(work / "text_encoder")
        _mark_finished(work / "text_encoder")
    for name, train, steps in (
        ("video_codec", train_video_codec, config.video_codec_steps),
        ("audio_codec", train_audio_codec, config.audio_codec_steps),
    ):
        if not _is_finished(work / name):
            torch.manual_seed(config.seed)
            train(steps).save_pretrained(work / name)
            _mark_finished(work / name)
    text_encoder = TextEncoder.from_pretrained(work / "text_encoder", TEXT_LEN)
    video_codec = FrameGroupVideoCodec.from_pretrained(work / "video_codec")
    audio_codec = MelAudioCodec.from_pretrained(work / "audio_codec")
    latents = encode_scenes(config.num_scenes, video_codec, audio_codec, work / "latents.pt")
    transformer = train_transformer(
        latents,
        text_encoder,
        DEFAULTS.negative_prompt,
        config.transformer_steps,
        work / "transformer.pt",
        compile_blocks=config.compile_blocks,
    )
    pipeline = JointAVPipeline.from_parts(transformer, video_codec, audio_codec, text_encoder, DEFAULTS)
    pipeline.save_pretrained(config.output, dtype=torch.float16)
    return pipeline


def main(argv: Sequence[str] | None = None) -> int:
    config = parse_config(BootstrapConfig, argv)
    bootstrap(config)
    echo(f"{config.output} is finished; grade it with: python -m synthetic.grade --model {config.output}")
    return 0


def _is_finished(folder: Path) -> bool:
    return (folder / "finished").exists()


def _mark_finished(folder: Path) -> None:
    (folder / "finished").touch()


if __name__ == "__main__":
    sys.exit(main())
