"""A randomly initialised pipeline on disk, and pairs and groups of its clips, as input of `dpo.prepare`."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
from datasets import Dataset
from diffusers import AutoencoderKL
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from core.ids import candidate_id
from core.schema import CANDIDATES, SCORES, table_from_rows, with_metadata, write_table
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


REWARDS = {
    "visual_quality": {"higher_is_better": "true", "reward": "tiny"},
    "audio_quality": {"higher_is_better": "true", "reward": "tiny"},
    "desync": {"higher_is_better": "false", "reward": "tiny"},
    "loudness": {"higher_is_better": "false", "reward": "own"},
}


def save_run(folder, model, sizes=(3, 3, 2), ground_truth=False, seed=0):
    """Write the candidates and scores of a run: one group per size, latents kept by the sampler, random scores."""
    pipeline = JointAVPipeline.from_pretrained(model)
    media = folder / "candidates" / "media"
    media.mkdir(parents=True, exist_ok=True)
    rows = []
    shape = {"num_frames": 9, "height": 32, "width": 32, "fps": 16.0, "sample_rate": 16_000, "duration_s": 9 / 16}
    for number, size in enumerate(sizes):
        prompt = {"prompt_id": f"p{number}", "prompt": "a red ball" if number % 2 else "a blue ball bounces"}
        for index in range(-1 if ground_truth else 0, size):
            name = f"p{number}-{index}"
            row = prompt | {"candidate_id": candidate_id(f"p{number}", index), "index": index}
            row |= shape | {"is_ground_truth": index < 0, "video_path": f"media/{name}.mp4"}
            if index < 0:
                rng = np.random.default_rng(number)
                sound = rng.uniform(-0.5, 0.5, (1, 9000)).astype(np.float32)
                clip = AVClip(rng.integers(0, 255, (9, 32, 32, 3), dtype=np.uint8), 16.0, sound, 16_000)
                write_clip(clip, media / f"{name}.mp4")
                row["audio_path"] = f"media/{name}.wav"
            else:
                latents = pipeline([row["prompt"]], seeds=[10 * number + index], output="latents")[0]
                latents.save(media / f"{name}.safetensors")
                row |= {"latents_path": f"media/{name}.safetensors", "seed": 10 * number + index}
            rows.append(row)
    save_tables(folder, rows, np.random.default_rng(seed).normal(size=(len(rows), len(REWARDS))))
    return folder


def save_tables(folder, rows, scores):
    """Write both tables of a run as sampling and scoring do; `scores` (candidates, REWARDS), NaN where they failed."""
    settings = {"model": "weights 0123", "seed": 0, "guidance_scale": 1.0, "num_inference_steps": None}
    table = with_metadata(table_from_rows(rows, CANDIDATES), {"avdpo.settings": json.dumps(settings)})
    write_table(table, CANDIDATES, folder / "candidates" / "candidates.parquet")
    fields = [pa.field(name, pa.float64(), metadata=values) for name, values in REWARDS.items()]
    made_by = {name: {"version": "7", "weights": None, "path": None} for name in ("tiny", "own")}
    schema = pa.schema([SCORES.field("candidate_id"), *fields], metadata={"avdpo.rewards": json.dumps(made_by)})
    columns = [pa.array(column, from_pandas=True) for column in np.asarray(scores, dtype=np.float64).T]
    keys = pa.array([row["candidate_id"] for row in rows])
    (folder / "scores").mkdir(parents=True, exist_ok=True)
    write_table(pa.Table.from_arrays([keys, *columns], schema=schema), SCORES, folder / "scores" / "scores.parquet")
