"""Training task of the tiny VideoAlign: picture quality, motion quality and agreement with the caption on Bounce."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from core.atomic import atomic_path, atomic_write_text
from media import AVClip
from rewards.videoalign.batches import Sample, collate
from rewards.videoalign.config import MODEL_CONFIG_NAME, OVERRIDES_NAME, TextConfig, VideoAlignConfig, VisionConfig
from rewards.videoalign.frontend import plan_frames, video_patches
from rewards.videoalign.network import VideoAlignNetwork
from rewards.videoalign.prompt import CONTROL_TOKENS, REWARD_TOKENS, TEMPLATE_NAME, ChatTokenizer
from rewards.videoalign.weights import published_state
from synthetic.captions import caption, vocabulary
from synthetic.corrupt import MOTION, PICTURE, corrupt
from synthetic.render import render_clip
from synthetic.scene import scene_from_seed
from synthetic.train_rewards.training import area_under_roc

TEMPLATE = (
    "how good is the picture <|VQ_reward|> how good is the motion <|MQ_reward|> "
    "does it show {text_prompt} <|TA_reward|>"
)
CHAT_WORDS = ("system", "you", "are", "a", "helpful", "assistant", "user")
WEIGHTS = (1.0, 1.0, 3.0)  # of picture, motion and caption, which is the hardest
PAD, UNKNOWN = "<|endoftext|>", "<|unknown|>"
VIDEOALIGN = VideoAlignConfig(
    text_config=TextConfig(
        hidden_size=64, intermediate_size=192, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2
    ),
    vision_config=VisionConfig(depth=2, embed_dim=64, num_heads=4, mlp_ratio=2, patch_size=8),
    fps=8.0,
    max_frame_pixels=64 * 64,
    min_frame_pixels=64 * 64,
    prompt_template_sha256=hashlib.sha256(TEMPLATE.encode()).hexdigest(),
)


@dataclass(frozen=True)
class VideoAlignTask:
    """Task of VideoAlign: Bradley-Terry, as published; a clean clip must beat clips that are worse in one dimension."""

    name: str = "videoalign"
    batch_size: int = 12

    @cached_property
    def chat(self) -> ChatTokenizer:
        return ChatTokenizer(word_tokenizer(), TEMPLATE, has_reward_tokens=True)

    def network(self) -> VideoAlignNetwork:
        return VideoAlignNetwork(VIDEOALIGN, self.chat.ids)

    def loss(self, network: VideoAlignNetwork, seeds: range) -> tuple[Tensor, float]:
        """Return the loss of all pairs of a clean and a worse clip, of any scenes, and the share of right orders."""
        clips = [render_clip(scene_from_seed(seed)) for seed in seeds]
        clean = [self._sample(clip, seed) for clip, seed in zip(clips, seeds, strict=True)]
        corrupted = [self._corrupted(clip, seed) for clip, seed in zip(clips, seeds, strict=True)]
        mismatched = [self._sample(clip, _other_seed(seed)) for clip, seed in zip(clips, seeds, strict=True)]
        batch = collate([*clean, *corrupted, *mismatched], self.chat.ids.pad)
        good, bad, untrue = network(batch.input_ids, batch.patches, batch.grids).chunk(3)  # (B, 3) each
        columns = ((good[:, 0], bad[::2, 0]), (good[:, 1], bad[1::2, 1]), (good[:, 2], untrue[:, 2]))
        losses = torch.stack([F.softplus(worse - better[:, None]).mean() for better, worse in columns])
        return losses @ torch.tensor(WEIGHTS), float(np.mean([area_under_roc(*column) for column in columns]))

    def save(self, network: VideoAlignNetwork, folder: Path) -> None:
        """Write the published layout, without LoRA."""
        step = folder / "checkpoint-1"
        step.mkdir(parents=True, exist_ok=True)
        word_tokenizer().save_pretrained(step / "tokenizer")
        state = {name: tensor.half().contiguous() for name, tensor in published_state(network).items()}
        with atomic_path(step / "model.safetensors") as path:
            save_file(state, path)
        config = network.config
        published = {
            "data_config": {"fps": config.fps, "max_frame_pixels": config.max_frame_pixels},
            "model_config": {"output_dim": config.output_dim, "use_special_tokens": True},
        }
        overrides = {
            "text_config": dataclasses.asdict(config.text_config),
            "vision_config": dataclasses.asdict(config.vision_config),
            "min_frame_pixels": config.min_frame_pixels,
            "prompt_template_sha256": config.prompt_template_sha256,
        }
        atomic_write_text(folder / MODEL_CONFIG_NAME, json.dumps(published, indent=2) + "\n")
        atomic_write_text(folder / OVERRIDES_NAME, json.dumps(overrides, indent=2) + "\n")
        atomic_write_text(folder / TEMPLATE_NAME, TEMPLATE)

    def _corrupted(self, clip: AVClip, seed: int) -> Sample:
        """Return the clip with a worse picture for an even seed, with worse motion for an odd one.

        Batches have an even size, so every batch starts with a worse picture.
        """
        return self._sample(corrupt(clip, (PICTURE, MOTION)[seed % 2], np.random.default_rng((seed, 4)))[0], seed)

    def _sample(self, clip: AVClip, caption_seed: int) -> Sample:
        plan = plan_frames(clip, VIDEOALIGN)
        ids = self.chat.encode(caption(scene_from_seed(caption_seed)), plan.num_tokens)
        return Sample(ids, video_patches(clip, plan, VIDEOALIGN.vision_config), plan.grid)


def _other_seed(seed: int) -> int:
    """Return the seed of another scene, whose caption does not match this scene's clip."""
    return int(np.random.default_rng((seed, 9)).integers(2**40))


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token per word of the captions, the template and the chat."""
    marks = (PAD, UNKNOWN, *CONTROL_TOKENS, *REWARD_TOKENS)
    template = pre_tokenizers.Whitespace().pre_tokenize_str(TEMPLATE)
    words = sorted({*vocabulary(), *CHAT_WORDS, ".", *(word for word, _ in template if word.isalpha())})
    numbered = {token: index for index, token in enumerate((*marks, *words))}
    tokenizer = Tokenizer(WordLevel(numbered, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNKNOWN)
    fast.add_special_tokens({"additional_special_tokens": [*CONTROL_TOKENS, *REWARD_TOKENS]})
    return fast
