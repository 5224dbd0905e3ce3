"""What the tiny ImageBind is taught: which caption, picture and sound of Bounce belong together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from media import AVClip
from rewards.imagebind.audio_front_end import clip_ranges, mel_clips
from rewards.imagebind.config import AudioConfig, ImageBindConfig, TextConfig, VisionConfig
from rewards.imagebind.encoder import ImageBindEncoder
from rewards.imagebind.loading import USED, save_encoder
from rewards.imagebind.network import ImageBind
from rewards.imagebind.tokenizer import TextTokenizer, train_clip_tokenizer
from rewards.imagebind.video_front_end import video_views
from synthetic.captions import caption
from synthetic.render import render_clip
from synthetic.scene import scene_from_seed

NUM_MERGES = 256  # at most: the words of the captions need fewer
NUM_TOKENIZER_CAPTIONS = 2000
TEMPERATURE = 0.07
IMAGEBIND = ImageBindConfig(
    embed_dim=64,
    vision=VisionConfig(width=64, blocks=3, heads=4, image_size=64, patch_size=16, frames_per_clip=16),
    text=TextConfig(width=64, blocks=2, heads=4, context_length=48),
    audio=AudioConfig(width=64, blocks=3, heads=4, mel_bins=64),
)


@dataclass(frozen=True)
class ImageBindTask:
    """Contrast: a caption, a picture and a sound are nearest to those of their own scene."""

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
        """InfoNCE of every pair of modalities, both ways."""
        scenes = [scene_from_seed(seed) for seed in seeds]
        clips = [render_clip(scene) for scene in scenes]
        views = [video_views(clip.video, clip.fps, IMAGEBIND.vision, torch.device("cpu")).inputs[0] for clip in clips]
        inputs = {
            "text": self.tokenizer([caption(scene) for scene in scenes], "correct"),
            "vision": torch.stack(views),
            "audio": self._mel(clips),
        }
        embeds = {name: F.normalize(network(name, value), dim=1) for name, value in inputs.items()}
        targets = torch.arange(len(seeds))
        losses, shares = [], []
        for first, second in combinations(embeds.values(), 2):
            similarity = first @ second.T / TEMPERATURE
            losses.append(F.cross_entropy(similarity, targets) + F.cross_entropy(similarity.T, targets))
            shares.append((similarity.diagonal()[:, None] >= similarity).float().mean().item())
        return torch.stack(losses).sum(), float(np.mean(shares))

    def save(self, network: ImageBind, folder: Path) -> None:
        save_encoder(ImageBindEncoder(network.half(), self.tokenizer), folder)

    @staticmethod
    def _mel(clips: Sequence[AVClip]) -> Tensor:
        """The first of the views that the front end hears, (B, 1, mel_bins, mel_frames)."""
        waves = torch.from_numpy(np.stack([clip.audio[0] for clip in clips]))
        start, stop = clip_ranges(waves.shape[1])[0]
        heard = waves[:, start:stop]
        config = IMAGEBIND.audio
        return mel_clips(heard - heard.mean(dim=1, keepdim=True), config.mel_bins, config.mel_frames)
