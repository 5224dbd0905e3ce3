"""The tiny joint transformer, trained on latents of rendered scenes with the published flow-matching loss."""

import os
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm, trange

from model.flow import TRAINING_SHIFT_SCALE, add_noise, sample_timesteps, shift_timesteps, velocity_target
from model.text import TextEmbeddings, TextEncoder
from model.tiny_codecs import FrameGroupVideoCodec, MelAudioCodec
from model.transformer import JointDiT, JointDiTConfig
from synthetic.captions import PHRASINGS, caption
from synthetic.muon import muon_and_adamw
from synthetic.render import render_audio, render_video
from synthetic.scene import HEIGHT, NUM_FRAMES, WIDTH, scene_from_seed

BATCH_SIZE = 16
LEARNING_RATE = 3e-3
WARMUP_STEPS = 100
EMA_DECAY = 0.995
TEXT_DROPOUT = 0.1
ENCODE_BATCH = 16
CHECKPOINT_STEPS = 100

TINY_CONFIG = JointDiTConfig(
    dim=192,
    ffn_dim=512,
    num_heads=6,
    num_layers=6,
    freq_dim=128,
    text_dim=64,
    text_len=40,
    video_channels=8,
    audio_channels=8,
    audio_patch=(4, 4),
)


@dataclass(frozen=True, eq=False)
class LatentSet:
    """Latents of scenes 0..N-1, half precision."""

    video: Tensor  # (N, C, T, H, W)
    audio: Tensor  # (N, C, T, M)


@torch.inference_mode()
def encode_scenes(
    num_scenes: int, video_codec: FrameGroupVideoCodec, audio_codec: MelAudioCodec, path: Path
) -> LatentSet:
    """Renders and encodes scenes once; the file is the cache."""
    if not path.exists():
        video, audio = [], []
        for first in trange(0, num_scenes, ENCODE_BATCH, desc="encode scenes"):
            scenes = [scene_from_seed(seed) for seed in range(first, min(first + ENCODE_BATCH, num_scenes))]
            with torch.autocast("cpu", torch.bfloat16):
                frames = torch.from_numpy(np.stack([render_video(scene) for scene in scenes]))
                video.append(video_codec.encode(frames).half())
                sound = torch.from_numpy(np.concatenate([render_audio(scene) for scene in scenes]))
                audio.append(audio_codec.encode(sound).half())
        _save_atomically({"video": torch.cat(video), "audio": torch.cat(audio)}, path)
    stored = torch.load(path, weights_only=True, mmap=True)
    return LatentSet(stored["video"], stored["audio"])


def train_transformer(
    latents: LatentSet,
    text_encoder: TextEncoder,
    negative_prompt: str,
    num_steps: int,
    checkpoint: Path,
    stop_after: int | None = None,
    compile_blocks: bool = False,
) -> JointDiT:
    """Trains for `num_steps`, going on from `checkpoint` where there is one; returns the EMA of the weights.

    `stop_after` ends the run at that step, to be gone on with; the learning rate still falls over `num_steps`.
    `compile_blocks` costs a minute or two at the start and saves a quarter of every step; it needs a C++ compiler.
    """
    run = _Run(num_steps)
    if checkpoint.exists():
        run.load_state_dict(torch.load(checkpoint, weights_only=True))
    if compile_blocks:
        for block in run.model.blocks:
            block.compile()
    captions = _CaptionBank(text_encoder, negative_prompt)
    progress = tqdm(total=num_steps, initial=run.step, desc="transformer")
    last_step = min(num_steps, stop_after or num_steps)
    for indices in _batches(len(latents.video), run.step, last_step):
        generator = torch.Generator().manual_seed(run.step)
        batch = {"video": latents.video[indices].float(), "audio": latents.audio[indices].float()}
        losses = _losses(run.model, batch, captions.draw(indices, generator), generator)
        run.update(sum(losses.values(), torch.zeros(())))
        progress.update()
        progress.set_postfix({name: f"{loss.item():.3f}" for name, loss in losses.items()})
        if run.step % CHECKPOINT_STEPS == 0 or run.step == last_step:
            _save_atomically(run.state_dict(), checkpoint)
    return run.average.eval()


class _Run:
    """Model, average and optimizers; everything a checkpoint must hold."""

    def __init__(self, num_steps: int) -> None:
        torch.manual_seed(0)
        self.step = 0
        self.num_steps = num_steps
        self.model = JointDiT(TINY_CONFIG).train()
        self.average = deepcopy(self.model).requires_grad_(False)
        self.optimizers = muon_and_adamw(self.model, LEARNING_RATE, hidden=self.model.blocks)

    def update(self, loss: Tensor) -> None:
        factor = min((self.step + 1) / WARMUP_STEPS, 1.0) * max(1 - self.step / self.num_steps, 0.02)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * factor
            optimizer.step()
            optimizer.zero_grad()
        decay = min(EMA_DECAY, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - decay)
        self.step += 1

    def state_dict(self) -> dict[str, object]:
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def load_state_dict(self, state: dict) -> None:
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        for optimizer, stored in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(stored)


class _CaptionBank:
    """Text embeddings of scenes' captions."""

    def __init__(self, text_encoder: TextEncoder, negative_prompt: str) -> None:
        self.encoder = text_encoder
        self.negative = text_encoder([negative_prompt])

    def draw(self, indices: Tensor, generator: torch.Generator) -> TextEmbeddings:
        """A random phrasing per scene, replaced by the negative prompt with probability 0.1, as in the release."""
        phrasings = torch.randint(len(PHRASINGS), (len(indices),), generator=generator)
        texts = [caption(scene_from_seed(int(i)), int(p)) for i, p in zip(indices, phrasings, strict=True)]
        text = self.encoder(texts)
        dropped = torch.rand(len(indices), generator=generator) < TEXT_DROPOUT
        return TextEmbeddings(
            torch.where(dropped[:, None, None], self.negative.embeds, text.embeds),
            torch.where(dropped[:, None], self.negative.mask, text.mask),
        )


def _losses(
    model: JointDiT, latents: dict[str, Tensor], text: TextEmbeddings, generator: torch.Generator
) -> dict[str, Tensor]:
    """Mean squared velocity error per modality; both share the timestep."""
    timestep = sample_timesteps(len(text.mask), generator)
    timestep = shift_timesteps(timestep, HEIGHT, WIDTH, NUM_FRAMES, TRAINING_SHIFT_SCALE)
    noise = {name: torch.randn(latent.shape, generator=generator) for name, latent in latents.items()}
    noisy = {name: add_noise(latent, noise[name], timestep) for name, latent in latents.items()}
    with torch.autocast("cpu", torch.bfloat16):
        output = model(noisy["video"], noisy["audio"], timestep, text.embeds, text.mask)
    return {
        name: (prediction.float() - velocity_target(latents[name], noise[name])).square().mean()
        for name, prediction in (("video", output.video), ("audio", output.audio))
    }


def _batches(num_items: int, first_step: int, last_step: int) -> Iterator[Tensor]:
    """Shuffled epochs; the batch of a step depends on the step alone, so that a resumed run sees the same ones."""
    per_epoch = num_items // BATCH_SIZE
    for step in range(first_step, last_step):
        epoch, place = divmod(step, per_epoch)
        if place == 0 or step == first_step:
            order = torch.randperm(num_items, generator=torch.Generator().manual_seed(epoch))
        yield order[place * BATCH_SIZE : (place + 1) * BATCH_SIZE]


def _save_atomically(state: object, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)
