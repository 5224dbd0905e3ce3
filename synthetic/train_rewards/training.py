"""The training loop of the tiny preset's learned rewards.

The data of a step is a function of its number, so an interrupted run continues with the same result.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from core.atomic import atomic_path
from model.optimizers import Muon

WARMUP_STEPS = 50
MAX_GRAD_NORM = 1.0
CHECKPOINT_NAME = "checkpoint.pt"
SAVE_STEPS = 200


class RewardTask(Protocol):
    """Interface of the training task of one reward."""

    @property
    def name(self) -> str:
        """Name of the reward."""

    @property
    def batch_size(self) -> int:
        """Number of scenes per step."""

    def network(self) -> nn.Module:
        """Return a new network with random weights."""

    def loss(self, network: Any, seeds: range) -> tuple[Tensor, float]:
        """Return the loss over the scenes of these seeds, and a share of right answers for display.

        All random draws depend only on the seeds.
        """

    def save(self, network: Any, folder: Path) -> None:
        """Write a folder that the reward can load."""


def train(task: RewardTask, num_steps: int, learning_rate: float, folder: Path, seed: int) -> nn.Module:
    """Train the network of a task, starting from the checkpoint in `folder` if there is one.

    Args:
        task: network, data and loss.
        num_steps: number of training steps in total.
        learning_rate: peak learning rate of Muon.
        folder: folder of the checkpoint.
        seed: seed of the initial weights.
    """
    torch.manual_seed(seed)
    network = task.network().train()
    optimizer = Muon(network, lr=learning_rate)
    first = _load(network, optimizer, folder / CHECKPOINT_NAME)
    progress = tqdm(range(first, num_steps), desc=task.name, initial=first, total=num_steps, mininterval=2.0)
    shown = 0.5
    for step in progress:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * _schedule(step, num_steps)
        loss, right = task.loss(network, range(step * task.batch_size, (step + 1) * task.batch_size))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        shown += 0.05 * (right - shown)
        progress.set_postfix(loss=f"{loss.item():.3f}", right=f"{shown:.1%}", refresh=False)
        if (step + 1) % SAVE_STEPS == 0 or step + 1 == num_steps:
            _save(network, optimizer, step + 1, folder / CHECKPOINT_NAME)
    return network.eval()


def area_under_roc(better: Tensor, worse: Tensor) -> float:
    """Return the share of all pairs of scores (N,) and (M,) in which `better` has the higher one; a tie counts half."""
    difference = better[:, None] - worse
    return ((difference > 0).double() + 0.5 * (difference == 0).double()).mean().item()


def _schedule(step: int, num_steps: int) -> float:
    """Return the factor of the learning rate: linear warm-up, multiplied by a cosine that falls to zero."""
    warmup = min((step + 1) / WARMUP_STEPS, 1.0)
    return warmup * (0.5 + 0.5 * math.cos(math.pi * step / num_steps))


def _save(network: nn.Module, optimizer: torch.optim.Optimizer, step: int, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"step": step, "network": network.state_dict(), "optimizer": optimizer.state_dict()}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        torch.save(state, file)


def _load(network: nn.Module, optimizer: torch.optim.Optimizer, path: Path) -> int:
    """Restore the checkpoint if there is one, and return the number of the next step."""
    if not path.is_file():
        return 0
    state = torch.load(path, weights_only=True)
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])
