"""The loop that trains every learned reward of the tiny preset.

What a step does is a function of its number, so a run that was killed goes on as if nothing had happened.
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
    """What one reward is taught."""

    @property
    def name(self) -> str:
        """Of the reward."""

    @property
    def batch_size(self) -> int:
        """Scenes of a step."""

    def network(self) -> nn.Module:
        """A new network, of random weights."""

    def loss(self, network: Any, seeds: range) -> tuple[Tensor, float]:
        """The loss over the scenes of these seeds, and a share of right answers to show; every draw follows from the
        seeds."""

    def save(self, network: Any, folder: Path) -> None:
        """Writes a folder that the reward loads."""


def train(task: RewardTask, num_steps: int, learning_rate: float, folder: Path, seed: int) -> nn.Module:
    """Trains the network of a task, from the checkpoint in `folder` where there is one."""
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
    """The share of all pairs, of (N,) and (M,) scores, in which the better one has the higher; a tie counts half."""
    difference = better[:, None] - worse
    return ((difference > 0).double() + 0.5 * (difference == 0).double()).mean().item()


def _schedule(step: int, num_steps: int) -> float:
    """Linear warm-up, then a cosine down to nothing."""
    warmup = min((step + 1) / WARMUP_STEPS, 1.0)
    return warmup * (0.5 + 0.5 * math.cos(math.pi * step / num_steps))


def _save(network: nn.Module, optimizer: torch.optim.Optimizer, step: int, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"step": step, "network": network.state_dict(), "optimizer": optimizer.state_dict()}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        torch.save(state, file)


def _load(network: nn.Module, optimizer: torch.optim.Optimizer, path: Path) -> int:
    """The step to go on with."""
    if not path.is_file():
        return 0
    state = torch.load(path, weights_only=True)
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])
