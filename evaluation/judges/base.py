"""What is computed once per clip and kept: the features that distances compare, and the scores that are averaged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from rewards.base import Prompt, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from media.clip import AVClip


class Extractor(ABC):
    """One network, or one measurement, over clips. Importing its module is cheap; `load` may be slow.

    What it says of a clip depends on that clip and its prompt only. Its values are kept by (file, name, version,
    weights), and by the prompt where it needs "text".
    """

    name: ClassVar[str]
    version: str  # changes whenever a value could
    outputs: ClassVar[dict[str, int | None]]  # output -> width of its features; None: a score per clip
    needs: ClassVar[frozenset[str]]  # of "video", "audio", "text"
    published: ClassVar[str | None] = None  # its weights' path in what `model.fetch` fetched; None: it has none
    protocols: ClassVar[tuple[Protocol, ...]] = ("correct",)  # those under which its values differ

    @classmethod
    def version_under(cls, protocol: Protocol) -> str:
        """The version of values that were made under a protocol."""
        return f"{cls.version}+{protocol}" if protocol != "correct" and protocol in cls.protocols else cls.version

    @classmethod
    def load(
        cls, path: str | None = None, device: str = "cpu", dtype: str = "float32", protocol: Protocol = "correct"
    ) -> Self:
        """An instance ready to extract; this default is for one without weights and with one way to measure.

        Args:
            path: file or folder of the weights, or a folder that holds them under their published name.
            device: a torch device.
            dtype: of the network; values are float32 all the same.
            protocol: "javisbench" reproduces the release's numbers where they differ from the correct ones.
        """
        if path is not None:
            raise ValueError(f"path={path!r} was given to {cls.name!r}, which has no weights to load. Leave path out.")
        return cls()

    @classmethod
    def companions(cls, weights: Path) -> list[Path]:
        """What shapes a value beside the file or folder of weights that was found: files or folders, there or not."""
        return [weights.with_name("config.json")] if weights.is_file() else []

    def frames(self, num_frames: int, fps: float) -> Collection[int] | None:
        """Which frames of a clip `extract` looks at, from 0; None for all. The others are black in what it is given."""
        return None

    @abstractmethod
    def extract(self, clips: list[AVClip], prompts: list[Prompt]) -> dict[str, Tensor]:
        """float32 (B,) for each score and (B, width) for each feature. NaN: not defined for this clip."""
