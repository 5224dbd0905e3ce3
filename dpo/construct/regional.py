"""Losers with regions that the frozen model generated anew from the partly noised winner (LocalDPO).

Source: docs/upstream/constructed_negatives.md, section 2. Other than the release, the sampling stays in latents, so
that winner and loser are equal to the bit outside the regions; each pair has noise of its own; and picture and sound
are generated together, each inside its own mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from dpo.construct.config import ConstructSettings
from dpo.construct.masks import moving_mask, sound_mask
from dpo.construct.winners import Winner
from dpo.data.constructed_schema import MASKS, STRENGTH
from dpo.data.schema import MODALITIES
from model.data.draws import sample_seed, stack_texts
from model.flow import add_noise, euler_step, guide, sampling_timesteps
from model.javisdit.network.transformer import JointDiT
from model.javisdit.pipeline import JointAVPipeline
from model.prepare.parts import Row

Latents = dict[str, Tensor]  # modality -> (1, ...)


class RegionalLosers:
    """Makes one pair of a winner."""

    def __init__(self, settings: ConstructSettings, pipeline: JointAVPipeline, negative_text: Tensor) -> None:
        """Take the network of a pipeline, and the padded embedding of the negative prompt, (text_len, text_dim)."""
        self._settings = settings
        self._pipeline = pipeline
        self._negative_text = negative_text[negative_text.any(1)]  # unpadded
        defaults = pipeline.defaults
        self._num_steps = settings.num_inference_steps or defaults.num_inference_steps
        self._scale = defaults.guidance_scale if settings.guidance_scale is None else settings.guidance_scale

    def rows(self, winner: Winner) -> list[Row]:
        pair_id = _pair_id(winner)
        seed = sample_seed(self._settings.seed, pair_id, 0)
        rng = np.random.default_rng(seed)
        strength = float(rng.choice(self._settings.strengths))
        masks = draw_masks(rng, winner, self._settings.regions)
        made = self._regenerate(winner, masks, strength, seed)
        loser = {
            name: np.where(masks[name], made[name].numpy().astype(np.float16), latents)
            for name, latents in winner.latents.items()
            if name in masks
        }
        columns = {MASKS[name]: _column(masks.get(name)) for name in MODALITIES}
        return [winner.pair(pair_id, loser) | columns | {STRENGTH: strength}]

    def failures(self, winner: Winner, reason: str) -> list[Row]:
        return [{"pair_id": _pair_id(winner), "prompt_id": winner.columns["prompt_id"], "reason": reason}]

    def _regenerate(self, winner: Winner, masks: Mapping[str, np.ndarray], strength: float, seed: int) -> Latents:
        network, device = self._pipeline.transformer, self._pipeline.device
        texts = [torch.from_numpy(winner.text.astype(np.float32))] + [self._negative_text] * (self._scale != 1)
        text, mask = stack_texts(texts, network.config.text_len)
        clean = {name: torch.from_numpy(latents.astype(np.float32))[None] for name, latents in winner.latents.items()}
        inside = {name: torch.from_numpy(masks[name])[None] for name in masks}
        generator = torch.Generator().manual_seed(seed)
        noise = {name: torch.randn(latents.shape, generator=generator) for name, latents in clean.items()}
        height, width, num_frames = winner.size
        grid = sampling_timesteps(self._num_steps, height, width, num_frames, self._pipeline.defaults.shift_scale)
        made = regenerate(
            network,
            *({name: tensor.to(device) for name, tensor in one.items()} for one in (clean, noise, inside)),
            text=text.to(device),
            text_mask=mask.to(device),
            num_frames=num_frames,
            timesteps=grid[first_step(self._num_steps, strength) :],
            guidance_scale=self._scale,
        )
        return {name: tensor[0].cpu() for name, tensor in made.items()}


@torch.inference_mode()
def regenerate(
    network: JointDiT,
    clean: Latents,
    noise: Latents,
    inside: Latents,
    *,
    text: Tensor,
    text_mask: Tensor,
    num_frames: int,
    timesteps: Tensor,
    guidance_scale: float,
) -> Latents:
    """Sample the inside of masks by Euler steps, starting from the noised latents.

    After each step everything outside is replaced by the clean latents at the new noise level, with the same noise.

    Args:
        network: frozen network.
        clean: modality -> latents (1, ...).
        noise: noise of the same shapes.
        inside: modality -> bool, broadcast to the latents: true where the network generates. A modality without a mask
            stays as it is.
        text: (1, L, D) embedding of the caption; (2, L, D) with the negative prompt, for guidance.
        text_mask: mask of `text`.
        num_frames: number of frames of the clip.
        timesteps: (S + 1,) falling in [0, 1000]: the level of the start, then that after each step, the last one 0.
        guidance_scale: scale of guidance, for two texts.

    Returns:
        The latents, float32.
    """
    latents = {name: _noised(clean[name], noise[name], timesteps[0]) for name in clean}
    for now, following in pairwise(timesteps):
        batch = {name: latent.expand(len(text), *latent.shape[1:]) for name, latent in latents.items()}
        timestep = now.expand(len(text)).to(text.device)
        velocity = network(batch["video"], batch["audio"], timestep, text, text_mask, num_frames)._asdict()
        for name, latent in latents.items():
            outside = _noised(clean[name], noise[name], following)
            if name not in inside:
                latents[name] = outside
                continue
            guided = guide(velocity[name], guidance_scale) if len(text) > 1 else velocity[name]
            latents[name] = torch.where(inside[name], euler_step(latent, guided, now, following), outside)
    return latents


def first_step(num_steps: int, strength: float) -> int:
    """Return the step at which sampling starts, so that the last round(strength * num_steps) are made, at least one."""
    return num_steps - max(1, round(strength * num_steps))


def draw_masks(rng: np.random.Generator, winner: Winner, regions: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Draw a mask for each modality of `regions`, bool; video (1, T, H, W), audio (1, T, M)."""
    masks = {}
    height, width, _ = winner.size
    if "video" in regions:
        num_steps, rows, columns = winner.latents["video"].shape[1:]
        masks["video"] = moving_mask(rng, (num_steps, rows, columns), (height, width))[None]
    if "audio" in regions:
        num_steps, bands = winner.latents["audio"].shape[1:]
        masks["audio"] = sound_mask(rng, (num_steps, bands))[None]
    return masks


def _noised(clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    return add_noise(clean, noise, timestep.view(1).to(clean.device))


def _column(mask: np.ndarray | None) -> np.ndarray:
    return np.zeros(0, np.float16) if mask is None else mask.astype(np.float16).ravel()


def _pair_id(winner: Winner) -> str:
    return f"{winner.winner_id}>regional"
