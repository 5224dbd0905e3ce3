"""The running average of the trained weights, in float32 (the release's: decay 0.99 at every step).

Only trained parameters are averaged: in a LoRA run the adapter, not the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from core.atomic import atomic_path

EMA_NAME = "ema.safetensors"


class WeightAverage:
    """Running average of a module's trainable parameters. Sharded parameters are averaged shard by shard."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Start the average at the current weights."""
        self.decay = decay
        self.weights = {name: parameter.detach().float().clone() for name, parameter in _trained(model)}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the current weights, after each optimiser step."""
        current = dict(_trained(model))
        names = list(self.weights)
        latest = [current[name].detach().float() for name in names]
        torch._foreach_lerp_([self.weights[name] for name in names], latest, 1 - self.decay)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Give the model the averaged weights within the block."""
        own = {name: parameter.detach().clone() for name, parameter in _trained(model)}
        _assign(model, self.weights)
        try:
            yield
        finally:
            _assign(model, own)

    def save(self, folder: str | Path, is_writer: bool = True) -> None:
        """Write the average. With sharded parameters every process must call this, and one of them writes."""
        save_weights(self.weights, Path(folder) / EMA_NAME, is_writer)

    def load(self, folder: str | Path) -> None:
        """Read the average that `save` wrote.

        Raises:
            ValueError: the folder has no average, or one of other parameters.
        """
        path = Path(folder) / EMA_NAME
        if not path.is_file():
            raise ValueError(
                f"{folder} has no {EMA_NAME}: that run kept no average. Continue with ema_decay 0, or start a new run."
            )
        load_weights(self.weights, path)


def save_weights(weights: Mapping[str, Tensor], path: Path, is_writer: bool = True) -> None:
    """Write weights, sharded ones gathered: then every process must call this, and one of them writes."""
    whole = {name: _whole(weight.detach()).cpu().contiguous() for name, weight in weights.items()}
    if is_writer:
        with atomic_path(path) as temporary:
            save_file(whole, temporary)


@torch.no_grad()
def load_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Read a file of `save_weights` into existing weights.

    Raises:
        ValueError: the file holds other weights.
    """
    stored = load_file(path)
    if stored.keys() != weights.keys():
        other = sorted(stored.keys() ^ weights.keys())
        raise ValueError(f"{path} has other parameters, such as {other[0]}: give the checkpoint of this run.")
    for name, weight in weights.items():
        weight.copy_(_like(stored[name], weight))


def _trained(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


@torch.no_grad()
def _assign(model: nn.Module, weights: dict[str, Tensor]) -> None:
    for name, parameter in _trained(model):
        parameter.copy_(weights[name])


def _whole(weight: Tensor) -> Tensor:
    return weight.full_tensor() if isinstance(weight, DTensor) else weight


def _like(weight: Tensor, target: Tensor) -> Tensor:
    if not isinstance(target, DTensor):
        return weight
    return distribute_tensor(weight.to(target.device), target.device_mesh, target.placements)
