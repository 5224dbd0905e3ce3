"""The parts of a pipeline: loaded on first use; with offloading, on the accelerator only while they are in use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, Self

import torch


class Part(Protocol):
    """Interface of a part: a network, or an object that wraps networks. torch modules fulfil it."""

    def to(self, device: str | torch.device) -> Self:
        """Move the weights and return the part."""


class Components:
    """The parts of a pipeline by name, each loaded on first use.

    Args:
        loaders: part name -> function without arguments that loads the part.
        device: device on which parts compute.
        offload: keep parts on the CPU and move them to `device` only inside `use`; slower, but the device needs memory
            for only one part at a time.
    """

    def __init__(
        self, loaders: Mapping[str, Callable[[], Part]], device: str | torch.device = "cpu", offload: bool = False
    ) -> None:
        self._loaders = dict(loaders)
        self._loaded: dict[str, Any] = {}
        self.device = torch.device(device)
        self.offload = offload

    def __getitem__(self, name: str) -> Any:
        """Return the part, loading it if necessary; with offloading, on the CPU."""
        if name not in self._loaded:
            part = self._loaders[name]()
            self._loaded[name] = part if self.offload else part.to(self.device)
        return self._loaded[name]

    @property
    def loaded(self) -> tuple[str, ...]:
        return tuple(self._loaded)

    @contextmanager
    def use(self, name: str) -> Iterator[Any]:
        """Provide the part on its device; with offloading, move it back to the CPU afterwards."""
        part = self[name]
        if not self.offload:
            yield part
            return
        try:
            yield part.to(self.device)
        finally:
            part.to("cpu")

    def to(self, device: str | torch.device) -> None:
        """Change the device of the parts loaded so far and of those loaded later."""
        self.device = torch.device(device)
        if not self.offload:
            for part in self._loaded.values():
                part.to(self.device)
