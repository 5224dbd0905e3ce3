"""Training task of the tiny ImageBind: match captions, pictures and sounds of Bounce scenes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from media import AVClip
from rewards.imagebind.audio_front_end import clip_ranges, mel_clips
from rewards.imagebind.config import AudioConfig, ImageBindConfig, Modality, TextConfig, VisionConfig
from rewards.imagebind.encoder import ImageBindEncoder
from rewards.imagebind.loading import USED, save_encoder
from rewards.imagebind.network import ImageBind
from rewards.imagebind.tokenizer import TextTokenizer, train_clip_tokenizer
from rewards.imagebind.video_front_end import video_views
from synthetic.captions import caption
from synthetic.corrupt import shift_sound
from synthetic.render import render_clip
from synthetic.scene import scene_from_seed
from synthetic.train_rewards.training import area_under_roc

NUM_MERGES = 256  # upper limit: the words of the captions need fewer
NUM_TOKENIZER_CAPTIONS = 2000
TEMPERATURE = 0.07
AUDIO_VIDEO_WEIGHT = 2.0
CALIBRATION_WEIGHT = 10.0
MOVED_S = (0.25, 0.9)  # range of the shift that makes a sound a negative example
IMAGEBIND = ImageBindConfig(
    embed_dim=64,
    vision=VisionConfig(width=64, blocks=3, heads=4, image_size=64, patch_size=16, frames_per_clip=16),
    text=TextConfig(width=64, blocks=2, heads=4, context_length=48),
    audio=AudioConfig(width=64, blocks=3, heads=4, mel_bins=64),
)


@dataclass(frozen=True)
class ImageBindTask:
    """Task of ImageBind: contrastive learning, so that the modalities of one scene are nearest to each other."""

    name: str = "imagebind"
    batch_size: int = 32

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        captions = [caption(scene_from_seed(seed)) for seed in range(NUM_TOKENIZER_CAPTIONS)]
        return TextTokenizer(train_clip_tokenizer(captions, NUM_MERGES), IMAGEBIND.text.context_length)

    def network(self) -> ImageBind:
        text = replace(IMAGEBIND.text, vocab_size=self.tokenizer.vocab_size)
        return ImageBind(replace(IMAGEBIND, text=text), USED)

    def loss(self, network: ImageBind, seeds: range) -> tuple[Tensor, float]:
        """Return InfoNCE over every pair of modalities in both directions, and the share of right orders.

        For a picture, sounds that are too early or too late are further negatives: other scenes differ in so many
        ways that timing would be learned last. The share counts pairs in which a matching sound scores higher than a
        wrong one, over all pictures.
        """
        scenes = [scene_from_seed(seed) for seed in seeds]
        clips = [render_clip(scene) for scene in scenes]
        views = [video_views(clip.video, clip.fps, IMAGEBIND.vision, torch.device("cpu")).inputs[0] for clip in clips]
        text = _embed(network, "text", self.tokenizer([caption(scene) for scene in scenes], "correct"))
        vision = _embed(network, "vision", torch.stack(views))
        moved = [_moved(clip, seed) for clip, seed in zip(clips, seeds, strict=True)]
        audio, late = _embed(network, "audio", _mel([*clips, *moved])).chunk(2)
        targets = torch.arange(len(seeds))
        heard = vision @ torch.cat([audio, late]).T / TEMPERATURE  # (B, 2B)
        losses = [
            *(F.cross_entropy(pair, targets) for pair in _both_ways(text, vision)),
            *(F.cross_entropy(pair, targets) for pair in _both_ways(text, audio)),
            AUDIO_VIDEO_WEIGHT * F.cross_entropy(heard, targets),
            AUDIO_VIDEO_WEIGHT * F.cross_entropy(audio @ vision.T / TEMPERATURE, targets),
        ]
        own, wrong = heard[targets, targets], heard[~torch.eye(*heard.shape, dtype=torch.bool)]
        # Scores of different clips must be comparable, which the contrast within a row does not enforce.
        losses.append(CALIBRATION_WEIGHT * F.softplus(wrong - own[:, None]).mean())
        return torch.stack(losses).sum(), area_under_roc(own, wrong)

    def save(self, network: ImageBind, folder: Path) -> None:
        save_encoder(ImageBindEncoder(network.half(), self.tokenizer), folder)


def _embed(network: ImageBind, modality: Modality, inputs: Tensor) -> Tensor:
    return F.normalize(network(modality, inputs), dim=1)


def _both_ways(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    similarity = first @ second.T / TEMPERATURE
    return similarity, similarity.T


def _moved(clip: AVClip, seed: int) -> AVClip:
    rng = np.random.default_rng((seed, 8))
    return shift_sound(clip, float(rng.choice([-1, 1]) * rng.uniform(*MOVED_S)))


def _mel(clips: Sequence[AVClip]) -> Tensor:
    """Return the first of the front end's audio views, (B, 1, mel_bins, mel_frames)."""
    waves = torch.from_numpy(np.stack([clip.audio[0] for clip in clips]))
    start, stop = clip_ranges(waves.shape[1])[0]
    heard = waves[:, start:stop]
    config = IMAGEBIND.audio
    return mel_clips(heard - heard.mean(dim=1, keepdim=True), config.mel_bins, config.mel_frames)
