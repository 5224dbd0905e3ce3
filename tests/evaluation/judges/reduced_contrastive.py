"""Small CLIP, CLAP and AudioCLIP models of random weights, on disk in the published layouts, and clips for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import (
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    RobertaTokenizer,
)

from core.state_files import fill_module
from evaluation.judges.audioclip.config import AudioClipConfig
from evaluation.judges.audioclip.loading import published_state
from evaluation.judges.audioclip.network import AudioHead
from media import AVClip
from rewards.base import Prompt
from rewards.imagebind.tokenizer import byte_symbols, train_clip_tokenizer
from tests.rewards.procedural import procedural_tensor

TEXTS = ["A red ball falls.", "A blue ball rises, slowly!", "thunder & rain"]
REDUCED_AUDIO_HEAD = AudioClipConfig(stem_width=8, blocks=(1, 2, 1, 1), groups=2, width_per_group=16)


def write_clip_model(folder: Path, seed: int = 0) -> Path:
    """What openai/clip-vit-base-patch32 holds, with pictures of 32 pixels and texts of 16 tokens."""
    tokenizer = train_clip_tokenizer(TEXTS, 20)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"bos_token_id": len(tokenizer) - 2, "eos_token_id": 2, "pad_token_id": 1}  # 2: as in the published file
    text = {**sizes, **ids, "vocab_size": len(tokenizer), "max_position_embeddings": 16}
    config = CLIPConfig(text_config=text, vision_config={**sizes, "image_size": 32, "patch_size": 8}, projection_dim=24)
    torch.manual_seed(seed)
    model = CLIPModel(config)
    torch.nn.init.normal_(model.vision_model.embeddings.patch_embedding.weight, std=0.3)  # colours count
    model.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_clap_model(folder: Path, seed: int = 0, **audio: object) -> Path:
    """What laion/clap-htsat-unfused holds, with embeddings of 24 values, and sounds of 2 s where it has 10 s."""
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    symbols = ["<s>", "<pad>", "</s>", "<unk>", *byte_symbols(), "<mask>"]
    text = {**sizes, "vocab_size": len(symbols), "max_position_embeddings": 40, "projection_dim": 24}
    settings = {"patch_embeds_hidden_size": 8, "hidden_size": 16, "depths": [1, 1], "num_attention_heads": [1, 2]}
    settings |= {"projection_dim": 24, "num_hidden_layers": 2, **audio}
    config = ClapConfig(text_config=text, audio_config=settings, projection_dim=24)
    torch.manual_seed(seed)
    ClapModel(config).save_pretrained(folder)
    ClapFeatureExtractor(max_length_s=2, truncation="rand_trunc", padding="repeatpad").save_pretrained(folder)
    vocabulary = {symbol: index for index, symbol in enumerate(symbols)}
    RobertaTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    return folder


def write_audioclip(folder: Path, seed: int = 0) -> Path:
    """AudioCLIP-Full-Training.pt with a small audio head and something of the other towers."""
    others = {"visual.conv1.weight": torch.zeros(2, 3, 3, 3), "logit_scale_ai": torch.tensor(4.6)}
    state = published_state(reduced_audio_head(seed)) | {"audio.fbsp.bias": torch.empty(0)} | others
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"stem_width": 8, "blocks": [1, 2, 1, 1], "groups": 2, "width_per_group": 16}')
    torch.save(state, folder / "AudioCLIP-Full-Training.pt")
    return folder


def reduced_audio_head(seed: int = 0) -> AudioHead:
    return fill_audio_head(AudioHead(REDUCED_AUDIO_HEAD), seed)


def fill_audio_head(network: AudioHead, seed: int) -> AudioHead:
    """Procedural weights; the filters lie about those that training began with, the levels about those of a sound."""

    def tensor(name: str, old: torch.Tensor) -> torch.Tensor:
        if name == "window" or not old.is_floating_point():
            return old
        noise = procedural_tensor(name, old.shape, seed)  # 0.02 of a standard normal for what is no weight
        if name == "fbsp.m":
            return noise.abs() * 20  # no order is a whole number
        if name == "fbsp.fb":
            return 1 + noise * 5
        if name == "fbsp.fc":
            return old + noise * 5
        if name.endswith("running_var"):
            return (1 + noise.abs() * 50) * (1000 if name == "bn1.running_var" else 1)  # decibels vary more
        return torch.zeros_like(noise) if name == "fc.bias" else noise  # it would outweigh what the sound does

    state = network.state_dict()
    fill_module(network, [(name, tensor(name, old)) for name, old in state.items()], "procedural weights")
    return network.eval().requires_grad_(False)


def golden_sounds() -> dict[str, torch.Tensor]:
    """What the golden embeddings of the audio head were made from, float32 (N,)."""
    rng = np.random.default_rng(11)
    times = np.arange(5000) / 44100
    tone = 9000 * np.sin(2 * np.pi * 440 * times) + rng.normal(scale=500, size=5000)
    sounds = {"tone": tone, "short": tone[:900], "unit_range": tone[:3001] / 32768, "silence": np.zeros(1700)}
    return {name: torch.from_numpy(sound.astype(np.float32)) for name, sound in sounds.items()}


def sounding_clip(seconds: float = 1.0, sample_rate: int = 16_000, channels: int = 1, seed: int = 0) -> AVClip:
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (max(1, round(seconds * 8)), 40, 48, 3), dtype=np.uint8)
    times = np.arange(round(seconds * sample_rate)) / sample_rate
    tone = 0.3 * np.sin(2 * np.pi * (300 + 200 * seed) * times) + 0.05 * rng.normal(size=(channels, len(times)))
    return AVClip(frames, 8.0, np.clip(tone, -1, 1).astype(np.float32), sample_rate)


def prompt(text: str = TEXTS[0], audio_prompt: str | None = None) -> Prompt:
    return Prompt("p0", text, audio_prompt)
