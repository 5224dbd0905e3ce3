"""Interface between the driver of a preparation and the class that encodes its rows."""

from __future__ import annotations

from collections.abc import Callable, Collection
from importlib import import_module
from typing import Any, ClassVar, Protocol

from model.prepare.parts import Parts


class PartEncoder(Protocol):
    """Class that encodes rows and writes them as parts."""

    def write_part(
        self,
        parts: Parts,
        start: int,
        given_up: Collection[int] = (),
        progress: Callable[[int], Any] = lambda _: None,
    ) -> None: ...


class EncoderSettings(Protocol):
    """Plain values that are sent to a worker process, and the encoder class to build from them there."""

    encoder: ClassVar[str]  # "module:Class"


def load_encoder(settings: EncoderSettings) -> PartEncoder:
    """Import the class that the settings name and return an instance made with them."""
    module, _, name = settings.encoder.partition(":")
    return getattr(import_module(module), name)(settings)
