"""The parts of a pipeline: loaded on first use, and on the accelerator only while needed when offloaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, Self

import torch


class Part(Protocol):
    """A network or a wrapper of some; what torch modules do already."""

    def to(self, device: str | torch.device) -> Self:
        """Moves the weights and returns the part."""


class Components:
    """Parts by name.

    Args:
        loaders: functions without arguments that load each part.
        device: where parts work.
        offload: keep parts on the CPU, and on `device` only inside `use`; slower, and memory for one part at a time.
    """

    def __init__(
        self, loaders: Mapping[str, Callable[[], Part]], device: str | torch.device = "cpu", offload: bool = False
    ) -> None:
        self._loaders = dict(loaders)
        self._loaded: dict[str, Any] = {}
        self.device = torch.device(device)
        self.offload = offload

    def __getitem__(self, name: str) -> Any:
        """The part, loaded; on the CPU when offloaded."""
        if name not in self._loaded:
            part = self._loaders[name]()
            self._loaded[name] = part if self.offload else part.to(self.device)
        return self._loaded[name]

    @property
    def loaded(self) -> tuple[str, ...]:
        return tuple(self._loaded)

    @contextmanager
    def use(self, name: str) -> Iterator[Any]:
        """The part on its device, and back on the CPU afterwards when offloaded."""
        part = self[name]
        if not self.offload:
            yield part
            return
        try:
            yield part.to(self.device)
        finally:
            part.to("cpu")

    def to(self, device: str | torch.device) -> None:
        """Changes the device of parts loaded now and later."""
        self.device = torch.device(device)
        if not self.offload:
            for part in self._loaded.values():
                part.to(self.device)
