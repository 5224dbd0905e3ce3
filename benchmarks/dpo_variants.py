"""Training steps that `dpo_step.py` times: this project's kinds of reference, and a plain form of the published step.

All steps compute the same loss of the same pairs (their first losses are compared), with the same network, checkpointed
blocks and AdamW.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig
from torch import Tensor

from benchmarks.published_arithmetic import PublishedArithmetic
from dpo.data.schema import MODALITIES
from dpo.loss.av_dpo import av_dpo_loss
from dpo.loss.lora import reference_model
from dpo.train.trainer import noisy_pairs
from model.flow import add_noise
from model.javisdit.codecs.audio_lengths import training_mel_frames
from model.javisdit.network.config import JointDiTConfig
from model.javisdit.network.sizes import ClipSize, image_size
from model.javisdit.network.transformer import JointDiT
from model.lora import attach_adapter
from model.train.ema import WeightAverage
from model.train.freezing import LORA_TARGET_MODULES

BETA = {"video": 3000.0, "audio": 1000.0}
FM_WEIGHT, MAX_GRAD_NORM, EMA_DECAY = 0.1, 1.0, 0.99
FPS, LATENT_MEL_FRAMES, LATENT_BANDS = 16, 4, 16
SMALL = {"freq_dim": 256, "text_len": 64, "text_dim": 256}
SIZES = {
    "tiny": JointDiTConfig(dim=96, ffn_dim=256, num_heads=4, num_layers=4, **SMALL),
    "middle": JointDiTConfig(dim=512, ffn_dim=2048, num_heads=8, num_layers=12, **SMALL),
    "full": JointDiTConfig(),
}
CLIPS = {"tiny": (9, 64, 64), "middle": (9, 96, 96)}  # frames, height, width


@dataclass(frozen=True)
class Setting:
    """Settings that all variants of a comparison share."""

    size: str  # of the network: one of SIZES
    clip: tuple[int, int, int]  # frames, height, width in pixels
    num_pairs: int
    device: str
    autocast: bool  # bfloat16; frozen weights are stored in bfloat16, trained ones in float32
    checkpointing: bool

    @property
    def config(self) -> JointDiTConfig:
        return SIZES[self.size]

    @property
    def latent_shapes(self) -> dict[str, tuple[int, ...]]:
        steps = training_mel_frames(self.clip[0] / FPS) // LATENT_MEL_FRAMES
        sizes = {"video": ClipSize(*self.clip).padded.latent_size, "audio": (steps, LATENT_BANDS)}
        return {spec.name: (spec.channels, *sizes[spec.name]) for spec in self.config.specs}

    @property
    def num_tokens(self) -> int:
        """Number of tokens of the batch, which has two clips per pair."""
        sizes = {name: shape[1:] for name, shape in self.latent_shapes.items()}
        return 2 * self.num_pairs * self.config.num_tokens(sizes)

    def precision(self) -> AbstractContextManager[Any]:
        """Return the autocast context of a forward pass."""
        return torch.autocast(self.device, torch.bfloat16) if self.autocast else nullcontext()


def published_clip(resolution: str, num_frames: int) -> tuple[int, int, int]:
    """Return (frames, height, width) of a landscape clip of a published resolution."""
    return (num_frames, *image_size(resolution, "9:16"))


def make_batch(setting: Setting) -> dict[str, Any]:
    """Return a batch like that of `dpo.data.dataset.PairCollator`, with random latents and captions."""
    generator, count, config = torch.Generator().manual_seed(0), setting.num_pairs, setting.config

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(setting.device)

    batch: dict[str, Any] = {}
    for name, shape in setting.latent_shapes.items():
        batch |= {name: draw(2 * count, *shape), f"{name}_noise": draw(count, *shape)}
    lengths = torch.full((count, 1), config.text_len // 4)
    mask = (torch.arange(config.text_len) < lengths).to(setting.device)
    text = draw(count, config.text_len, config.text_dim) * mask[..., None]
    timestep = torch.full((count,), 700.0, device=setting.device)
    return batch | {"text": text, "text_mask": mask, "timestep": timestep, "num_frames": setting.clip[0]}


def build(variant: str, setting: Setting, encode: Callable[[], Any] = lambda: None) -> Callable[[], float]:
    """Return the training step of a variant: it updates the weights on fixed pairs and returns the loss.

    Args:
        variant: a key of `dpo_step.VARIANTS`.
        setting: settings of the comparison.
        encode: called first in the published step, to encode clips in memory and captions.
    """
    batch = make_batch(setting)
    if variant.startswith("published"):
        return _published(setting, batch, encode)
    if variant.endswith("cached"):
        return _cached(setting, batch, is_lora=variant.startswith("lora"))
    return (_lora if variant == "lora" else _full)(setting, batch)


def _lora(setting: Setting, batch: dict[str, Any]) -> Callable[[], float]:
    """Return a step that trains an adapter; the reference is the network with the adapter off."""
    model = attach_adapter(_network(setting, frozen=True), _adapter(0.0), seed=0).train()

    def reference() -> dict[str, Tensor]:
        with reference_model(model):
            return model(**arguments)._asdict()

    arguments, target = noisy_pairs(batch)
    return _our_step(setting, model, reference, arguments, target)


def _full(setting: Setting, batch: dict[str, Any]) -> Callable[[], float]:
    """Return a step that trains every weight; the reference is a frozen copy."""
    model = _network(setting).train()
    frozen = copy.deepcopy(model).requires_grad_(False).to(_stored_dtype(setting)).eval()

    @torch.no_grad()
    def reference() -> dict[str, Tensor]:
        return frozen(**arguments)._asdict()

    arguments, target = noisy_pairs(batch)
    return _our_step(setting, model, reference, arguments, target)


def _cached(setting: Setting, batch: dict[str, Any], is_lora: bool) -> Callable[[], float]:
    """Return a step that trains an adapter or every weight, with precomputed errors of the reference."""
    model: torch.nn.Module = _network(setting, frozen=is_lora).eval()
    arguments, target = noisy_pairs(batch)
    with torch.no_grad(), setting.precision():
        predicted = model(**arguments)._asdict()
    errors = {name: (predicted[name].float() - target[name]).square().flatten(1).mean(1) for name in MODALITIES}
    del predicted

    def reference() -> dict[str, Tensor]:
        """Return predictions with the stored errors; only the errors matter."""
        return {n: target[n] + errors[n].sqrt().view(-1, *[1] * (target[n].ndim - 1)) for n in MODALITIES}

    if is_lora:
        model = attach_adapter(model, _adapter(0.0), seed=0)
    return _our_step(setting, model.train(), reference, arguments, target)


def _our_step(
    setting: Setting,
    model: torch.nn.Module,
    reference: Callable[[], dict[str, Tensor]],
    arguments: dict[str, Any],
    target: dict[str, Tensor],
) -> Callable[[], float]:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, eps=1e-15, weight_decay=0.0)
    average = WeightAverage(model, EMA_DECAY)

    def step() -> float:
        with setting.precision():
            expected = reference()
            policy = model(**arguments)._asdict()
            loss = av_dpo_loss(policy, expected, target, beta=BETA, fm_weight=FM_WEIGHT).loss.mean()
        _update(loss, trained, optimizer)
        average.update(model)
        return loss.item()

    return step


def _published(setting: Setting, batch: dict[str, Any], encode: Callable[[], Any]) -> Callable[[], float]:
    """Return the published step (docs/upstream/training.md, sections 2, 4 and 7).

    The reference is a deep copy of the adapted network with its adapters on. The whole network has a float32 average,
    captions of winner and loser are separate, and positions are complex numbers, computed sample by sample.
    """
    adapted = attach_adapter(_network(setting, frozen=True), _adapter(0.05), seed=0)
    policy = PublishedArithmetic(adapted.get_base_model(), fused_attention=True).train()
    reference = copy.deepcopy(policy).eval().requires_grad_(False)
    average = copy.deepcopy(policy).float().requires_grad_(False)
    trained = {name: parameter for name, parameter in policy.named_parameters() if parameter.requires_grad}
    averaged = dict(average.named_parameters())
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-5, eps=1e-15, weight_decay=0.0)
    text, mask = torch.cat([batch["text"], batch["text"].clone()]), torch.cat([batch["text_mask"]] * 2)
    timestep = torch.cat([batch["timestep"]] * 2)

    def step() -> float:
        encode()
        noise = {name: torch.cat([batch[f"{name}_noise"]] * 2) for name in MODALITIES}
        noisy = [add_noise(batch[name], noise[name], timestep) for name in MODALITIES]
        target = {name: noise[name] - batch[name] for name in MODALITIES}
        with setting.precision():
            predicted = dict(zip(MODALITIES, policy(*noisy, timestep, text, mask), strict=True))
            with torch.no_grad():
                expected = dict(zip(MODALITIES, reference(*noisy, timestep, text, mask), strict=True))
        loss = sum(_published_loss(predicted[n], expected[n], target[n], BETA[n]) for n in MODALITIES)
        assert isinstance(loss, Tensor)
        _update(loss, list(trained.values()), optimizer)
        with torch.no_grad():
            for name, parameter in trained.items():
                averaged[name].lerp_(parameter.float(), 1 - EMA_DECAY)
        return loss.item()

    return step


def _published_loss(predicted: Tensor, expected: Tensor, target: Tensor, beta: float) -> Tensor:
    error, ref_error = ((one.float() - target).square().flatten(1).mean(1) for one in (predicted, expected))
    (winner, loser), (ref_winner, ref_loser) = error.chunk(2), ref_error.chunk(2)
    difference = (winner - loser) - (ref_winner - ref_loser)
    return (-F.logsigmoid(-0.5 * beta * difference) + FM_WEIGHT * winner).mean()


def _network(setting: Setting, frozen: bool = False) -> JointDiT:
    torch.manual_seed(0)
    with torch.device(setting.device):
        network = JointDiT(setting.config)
    for head in (network.head, network.audio_head):  # initialised to zero, so every prediction would be zero
        torch.nn.init.normal_(head.head.weight, std=0.02)
    network.gradient_checkpointing = setting.checkpointing
    return network.to(_stored_dtype(setting)) if frozen else network


def _stored_dtype(setting: Setting) -> torch.dtype:
    return torch.bfloat16 if setting.autocast else torch.float32


def _adapter(dropout: float) -> LoraConfig:
    return LoraConfig(r=64, lora_alpha=16, lora_dropout=dropout, target_modules=list(LORA_TARGET_MODULES))


def _update(loss: Tensor, trained: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, MAX_GRAD_NORM)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
