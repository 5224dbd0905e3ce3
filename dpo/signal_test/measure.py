"""Errors of winner and loser at shared draws, with the clip's own partner modality and with an unrelated clip's.

Source: docs/upstream/constructed_negatives.md, section 4.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from dpo.data.schema import MODALITIES
from dpo.loss.av_dpo import velocity_error
from dpo.loss.reference import velocities
from dpo.signal_test.trials import Latents, Trial, comparable, unrelated
from model.data.draws import Draw, draw, stack_texts
from model.flow import NUM_TRAIN_TIMESTEPS, add_noise, velocity_target
from model.javisdit.network.transformer import JointDiT


@dataclass(frozen=True, eq=False)
class Errors:
    """Mean squared velocity errors, one row per trial and draw.

    Attributes:
        labels: (N,) distortions.
        clips: (N,) numbers of the clips.
        sigma: (N,) noise levels in [0, 1].
        winner, loser: modality -> (N, 2) errors, with the own partner and with an unrelated one.
    """

    labels: np.ndarray
    clips: np.ndarray
    sigma: np.ndarray
    winner: dict[str, np.ndarray]
    loser: dict[str, np.ndarray]

    def difference(self, modality: str) -> np.ndarray:
        """Return loser minus winner, (N, 2), with the own partner and with an unrelated one."""
        return self.loser[modality] - self.winner[modality]


class _Draw(NamedTuple):
    """Errors of one trial at one draw, modality -> (2,)."""

    label: str
    clip_id: str
    sigma: float
    winner: Latents
    loser: Latents


@torch.inference_mode()
def measure_errors(network: JointDiT, trials: Sequence[Trial], num_draws: int, shift_scale: float, seed: int) -> Errors:
    """Run the network on all trials, at draws of noise and timestep that are made as in training.

    Winner and loser are passed in two batches of equal shapes, so equal ones have errors equal to the last bit. Trials
    without an unrelated clip of their size are left out.

    Raises:
        ValueError: winner and loser differ in both modalities, or no trial has an unrelated clip.
    """
    trials = comparable(trials)
    found = [
        _measure(network, trial, next(partners), number, shift_scale, seed)
        for index, trial in enumerate(tqdm(trials, desc="signal", unit="pair", file=sys.stderr))
        for partners in [unrelated(trials, index)]
        for number in range(num_draws)
    ]
    numbers = {clip_id: number for number, clip_id in enumerate(dict.fromkeys(one.clip_id for one in found))}
    return Errors(
        labels=np.array([one.label for one in found]),
        clips=np.array([numbers[one.clip_id] for one in found]),
        sigma=np.array([one.sigma for one in found]),
        winner=_stacked([one.winner for one in found]),
        loser=_stacked([one.loser for one in found]),
    )


def _measure(network: JointDiT, trial: Trial, other: Trial, number: int, shift_scale: float, seed: int) -> _Draw:
    shapes = {name: tuple(trial.chosen[name].shape) for name in MODALITIES}
    drawn = draw(seed, trial.clip_id, number, shapes, trial.size, 0.0, shift_scale)
    winner, loser = (
        _errors(network, with_partners(trial, side, other), trial, drawn) for side in (trial.chosen, trial.rejected)
    )
    return _Draw(trial.label, trial.clip_id, drawn.timestep.item() / NUM_TRAIN_TIMESTEPS, winner, loser)


def _stacked(errors: Sequence[Latents]) -> dict[str, np.ndarray]:
    return {name: torch.stack([one[name] for one in errors]).double().numpy() for name in MODALITIES}


def with_partners(trial: Trial, side: Latents, other: Trial) -> Latents:
    """Return a side of a trial twice, modality -> (2, ...): as it is, and with the other modality of another clip.

    The other modality is the one that winner and loser share.

    Raises:
        ValueError: they share none.
    """
    if len(trial.distorted) > 1:
        raise ValueError(
            f"Winner and loser of clip {trial.clip_id!r} differ in {' and '.join(trial.distorted)}, so neither can be "
            "exchanged for an unrelated clip's: test pairs that differ in one modality."
        )
    [distorted] = trial.distorted
    return {
        name: torch.stack([side[name], side[name] if name == distorted else other.chosen[name]]) for name in MODALITIES
    }


def _errors(network: JointDiT, latents: Latents, trial: Trial, drawn: Draw) -> Latents:
    """Return the error of each modality, (2,), on the CPU."""
    device = next(network.parameters()).device
    text, mask = stack_texts([trial.text] * 2, network.config.text_len)
    timestep = drawn.timestep.repeat(2)
    noise = {name: drawn.noise[name].expand_as(latents[name]) for name in MODALITIES}
    arguments = {
        "timestep": timestep.to(device),
        "text": text.to(device, network.dtype),
        "text_mask": mask.to(device),
        "num_frames": trial.size[2],
    }
    for name in MODALITIES:
        arguments[name] = add_noise(latents[name], noise[name], timestep).to(device, network.dtype)
    predicted = velocities(network, arguments)
    target = {name: velocity_target(latents[name], noise[name]).to(device) for name in MODALITIES}
    return {name: velocity_error(predicted[name], target[name]).cpu() for name in MODALITIES}


def partner_of(modality: str) -> str:
    """Return the name of the other modality."""
    return next(name for name in MODALITIES if name != modality)
