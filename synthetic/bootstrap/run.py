"""The steps that train the tiny preset: text encoder, codecs, latents, and the joint transformer in three stages."""

from __future__ import annotations

import torch

from core.cli import echo, save_config
from core.lineage import UNTRAINED, write_lineage
from model.javisdit.codecs.tiny import FrameGroupVideoCodec, MelAudioCodec
from model.javisdit.pipeline import GenerationDefaults, JointAVPipeline
from model.javisdit.text import TextEncoder
from synthetic.bootstrap.codecs import train_audio_codec, train_video_codec
from synthetic.bootstrap.config import BootstrapConfig
from synthetic.bootstrap.data import prepare_scenes
from synthetic.bootstrap.stages import STAGES, initial_model, train_stages
from synthetic.bootstrap.text import TEXT_LEN, train_text_encoder
from synthetic.grade import GradeConfig, grade, report
from synthetic.scene import FPS, HEIGHT, HELD_OUT_SEED_START, NUM_FRAMES, SAMPLE_RATE, WIDTH

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
EVAL_SEED_START = HELD_OUT_SEED_START + 1_000_000  # differs from the captions on which a finished model is graded


def bootstrap(config: BootstrapConfig) -> None:
    """Train the missing parts and write the preset, with weights in half precision."""
    work = config.work_dir
    work.mkdir(parents=True, exist_ok=True)
    save_config(config, work / "config.yaml")
    _train_parts(config)
    text_encoder = TextEncoder.from_pretrained(work / "text_encoder", TEXT_LEN)
    video_codec = FrameGroupVideoCodec.from_pretrained(work / "video_codec")
    audio_codec = MelAudioCodec.from_pretrained(work / "audio_codec")
    for name, seeds in (
        ("train", range(config.num_scenes)),
        ("held_out", range(EVAL_SEED_START, EVAL_SEED_START + config.num_eval_scenes)),
    ):
        if not (work / name / "state.json").is_file():
            prepare_scenes(seeds, video_codec, audio_codec, text_encoder, DEFAULTS.negative_prompt, work / name)
    _echo_grades(config, str(initial_model(work, DEFAULTS, config.seed)), reconstruct=True)
    settings = {name: getattr(config, name) for name in STAGES}
    transformer = train_stages(work, DEFAULTS, config.training | {"seed": config.seed}, settings)
    pipeline = JointAVPipeline.from_parts(transformer, video_codec, audio_codec, text_encoder, DEFAULTS)
    pipeline.save_pretrained(config.output, dtype=torch.float16)
    write_lineage(config.output, UNTRAINED)
    _echo_grades(config, str(config.output))


def _echo_grades(config: BootstrapConfig, model: str, reconstruct: bool = False) -> None:
    """Print the grades of held-out scenes reconstructed by the codecs, or of clips that the model generates."""
    if config.grade_captions:
        grades = GradeConfig(model=model, num_captions=config.grade_captions, reconstruct=reconstruct)
        echo(report(grades, *grade(grades)))


def _train_parts(config: BootstrapConfig) -> None:
    """Train the text encoder and the codecs that are not finished."""
    parts = (
        ("text_encoder", train_text_encoder, config.text_steps),
        ("video_codec", train_video_codec, config.video_codec_steps),
        ("audio_codec", train_audio_codec, config.audio_codec_steps),
    )
    for name, train, steps in parts:
        finished = config.work_dir / name / "finished"
        if not finished.exists():
            torch.manual_seed(config.seed)
            train(steps).save_pretrained(config.work_dir / name)
            finished.touch()
