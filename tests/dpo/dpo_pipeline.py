"""A randomly initialised pipeline on disk and pairs of its clips, as input of `dpo.prepare`."""

from __future__ import annotations

import numpy as np
from datasets import Dataset
from diffusers import AutoencoderKL
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from media.clip import AVClip
from media.write import write_clip
from model.javisdit.codecs.tiny import CodecConfig, FrameGroupVideoCodec, MelAudioCodec
from model.javisdit.pipeline import GenerationDefaults, JointAVPipeline
from model.javisdit.text import TextEncoder
from tests.small_latents import AUDIO_SHAPE, TEXT_DIM, TEXT_LEN, VIDEO_SHAPE, small_network

WORDS = ["<pad>", "<unk>", "a", "red", "blue", "ball", "bounces", "blurry"]
DEFAULTS = GenerationDefaults(num_frames=9, height=32, width=32, num_inference_steps=1, negative_prompt="blurry")


def _autoencoder(in_channels, latent_channels, num_blocks):
    return AutoencoderKL(
        in_channels=in_channels,
        out_channels=in_channels,
        latent_channels=latent_channels,
        down_block_types=["DownEncoderBlock2D"] * num_blocks,
        up_block_types=["UpDecoderBlock2D"] * num_blocks,
        block_out_channels=[4] * num_blocks,
        norm_num_groups=2,
        layers_per_block=1,
    ).eval()


def _statistics(channels):
    return CodecConfig(latents_mean=(0.0,) * channels, latents_std=(1.0,) * channels)


def save_pipeline(folder, seed=0):
    """Write a pipeline folder with random weights in every part."""
    transformer = small_network(seed).eval()
    tokens = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokens, pad_token="<pad>", unk_token="<unk>")
    text = UMT5Config(vocab_size=len(WORDS), d_model=TEXT_DIM, d_ff=16, d_kv=6, num_heads=2, num_layers=1)
    pipeline = JointAVPipeline.from_parts(
        transformer,
        FrameGroupVideoCodec(_autoencoder(12, VIDEO_SHAPE[0], 4), _statistics(VIDEO_SHAPE[0])),
        MelAudioCodec(_autoencoder(1, AUDIO_SHAPE[0], 3), _statistics(AUDIO_SHAPE[0])),
        TextEncoder(UMT5EncoderModel(text), tokenizer, TEXT_LEN),
        DEFAULTS,
    )
    pipeline.save_pretrained(folder)
    return folder


def save_pairs(folder, model, num_pairs=3, ground_truth=True):
    """Write pairs whose candidates have stored latents, except for the first winner, a ground-truth clip."""
    pipeline = JointAVPipeline.from_pretrained(model)
    media = folder.parent / "media"
    media.mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(num_pairs):
        row = {"prompt_id": f"p{i}", "prompt": "a red ball" if i % 2 else "a blue ball bounces", "margin": 1.0}
        row |= {"num_frames": 9, "height": 32, "width": 32, "fps": 16.0, "sample_rate": 16_000}
        for k, side in enumerate(("chosen", "rejected")):
            latents = pipeline([row["prompt"]], seeds=[2 * i + k], output="latents")[0]
            latents.save(media / f"{i}-{side}.safetensors")
            row |= {
                f"{side}_candidate_id": f"p{i}/{k}",
                f"{side}_seed": 2 * i + k,
                f"{side}_video_path": f"../media/{i}-{side}.mp4",
                f"{side}_audio_path": None,
                f"{side}_latents_path": f"../media/{i}-{side}.safetensors",
            }
        rows.append(row)
    if ground_truth:
        rng = np.random.default_rng(0)
        video = rng.integers(0, 255, (9, 32, 32, 3), dtype=np.uint8)
        audio = rng.uniform(-0.5, 0.5, (1, 9000)).astype(np.float32)
        write_clip(AVClip(video, 16.0, audio, 16_000), media / "gt.mp4")
        rows[0] |= {
            "chosen_candidate_id": "p0/gt",
            "chosen_seed": None,
            "chosen_video_path": "../media/gt.mp4",
            "chosen_audio_path": "../media/gt.wav",
            "chosen_latents_path": None,
        }
    Dataset.from_list(rows).save_to_disk(str(folder))
    return folder
