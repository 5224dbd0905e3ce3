"""A folder like that of `python -m model.fetch`, with small sizes and the real names, works as a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from model import JointAVPipeline, JointDiTConfig
from model.fetch.catalogue import PIPELINE
from model.javisdit.text import ORIGINAL_TOKENIZER, ORIGINAL_WEIGHTS
from model.javisdit.weights.checkpoints import load_javisdit, save_published
from tests.model.javisdit.golden import Golden, published_state
from tests.model.javisdit.small_codecs import save_audioldm2, save_wan_original
from tests.model.javisdit.small_model import small_adapter, small_model

WORDS = ["<pad>", "<unk>", "a", "dog", "barks"]
REQUEST = {"num_frames": 5, "height": 32, "width": 48, "num_inference_steps": 2}
TEXT_DIM = 64  # of the reduced text encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("weights")
    where = {name: root / path for name, path in PIPELINE["components"].items()}
    write_transformer(where["transformer"])
    write_text_encoder(where["text_encoder"])
    save_wan_original(where["video_codec"])
    save_audioldm2(where["audio_codec"])
    (root / "pipeline.json").write_text(json.dumps(PIPELINE), encoding="utf-8")
    return root


def write_transformer(folder: Path) -> None:
    config = JointDiTConfig(dim=48, ffn_dim=64, num_heads=2, num_layers=2, freq_dim=16, text_dim=TEXT_DIM, text_len=24)
    model = small_model(config).bfloat16()
    save_published(model, folder, shard_bytes=40_000)
    assert len(list((folder / "model").glob("pytorch_model-*.bin"))) > 2
    small_adapter(model).save_pretrained(str(folder / "lora"), safe_serialization=False)


def write_text_encoder(folder: Path) -> None:
    tokens = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokens, pad_token="<pad>", unk_token="<unk>")
    tokenizer.save_pretrained(folder / ORIGINAL_TOKENIZER)
    torch.save(published_state(Golden("media/umt5_reduced.safetensors")), folder / ORIGINAL_WEIGHTS)


def test_it_generates_saves_and_comes_back_the_same(folder, tmp_path):
    pipeline = JointAVPipeline.from_pretrained(folder, dtype=torch.bfloat16)
    [(clip, latents)] = pipeline(["a dog barks"], seeds=[3], output="both", **REQUEST)
    assert clip.video.shape == (5, 32, 48, 3)
    assert clip.audio.shape == (1, 5000)
    assert clip.video.std() > 0
    base = load_javisdit(folder / PIPELINE["components"]["transformer"], with_lora=False)
    assert not torch.equal(pipeline.transformer.blocks[0].ffn[0].weight, base.blocks[0].ffn[0].weight)
    pipeline.save_pretrained(tmp_path)
    again = JointAVPipeline.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert again.model_id == pipeline.model_id
    [(same_clip, same_latents)] = again(["a dog barks"], seeds=[3], output="both", **REQUEST)
    assert torch.equal(same_latents.video, latents.video)
    assert torch.equal(same_latents.audio, latents.audio)
    assert (same_clip.video == clip.video).all()
    assert (same_clip.audio == clip.audio).all()


def test_clips_are_encoded_at_the_sizes_that_are_generated(folder):
    pipeline = JointAVPipeline.from_pretrained(folder)
    [(clip, latents)] = pipeline(["a dog barks"], seeds=[3], output="both", **REQUEST)
    [encoded] = pipeline.encode_clips([clip])
    assert encoded.video.shape == latents.video.shape
    assert encoded.audio.shape == latents.audio.shape


def test_a_part_that_is_missing_is_named(folder, tmp_path):
    paths = {name: str(folder / path) for name, path in PIPELINE["components"].items()}
    broken = {**PIPELINE, "components": paths | {"text_encoder": "elsewhere"}}
    (tmp_path / "pipeline.json").write_text(json.dumps(broken), encoding="utf-8")
    with pytest.raises(ValueError, match="elsewhere is no text encoder"):
        _ = JointAVPipeline.from_pretrained(tmp_path).text_encoder
