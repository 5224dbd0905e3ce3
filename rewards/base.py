"""The interface of a reward: a name, the metric columns it yields, and one method on a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self, get_args

if TYPE_CHECKING:
    from torch import Tensor

    from media.clip import AVClip

Protocol = Literal["correct", "javisbench"]  # how to score: as it should be, or as the release does, defects included

JAVISBENCH_LENGTH_S = 4.0  # what the benchmark's documented commands look at and listen to, however long a clip is


@dataclass(frozen=True)
class Prompt:
    """What a clip was asked to show and sound like."""

    prompt_id: str
    prompt: str
    audio_prompt: str | None = None  # a text for the sound alone, where the table has one


class Reward(ABC):
    """Scores clips against prompts. Importing the module of a reward is cheap; `load` may be slow.

    A score depends on its own clip and prompt only, never on what else is in the batch.
    """

    name: ClassVar[str]
    version: str  # changes whenever a score could; scores are stored by (candidate, name, version, weights)
    columns: ClassVar[tuple[str, ...]]
    higher_is_better: ClassVar[dict[str, bool]]  # one entry per column
    needs: ClassVar[frozenset[str]]  # of "video", "audio", "text"
    licence: ClassVar[str]  # of the weights, as its owner names it
    published: ClassVar[str | None] = None  # file or folder name of the published weights; None: `load` takes no path
    protocols: ClassVar[tuple[Protocol, ...]] = ("correct",)  # those under which its scores differ

    @classmethod
    def version_under(cls, protocol: Protocol) -> str:
        """The version of scores that were made under a protocol: another one where the protocol changes them.

        Raises:
            ValueError: there is no such protocol.
        """
        if protocol not in get_args(Protocol):
            raise ValueError(f"protocol is {protocol!r}: choose one of {', '.join(get_args(Protocol))}.")
        return f"{cls.version}+{protocol}" if protocol != "correct" and protocol in cls.protocols else cls.version

    @classmethod
    def load(
        cls,
        path: str | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        protocol: Protocol = "correct",
    ) -> Self:
        """An instance ready to score. This default is for a reward without weights, and with one way to score.

        Args:
            path: folder or file of the weights; "tiny" for the preset that was trained on Bounce.
            device: a torch device.
            dtype: of the network, e.g. "float32" or "bfloat16"; scores are float32 all the same.
            protocol: "javisbench" reproduces the release's numbers where they differ from the correct ones.
        """
        if path is not None:
            raise ValueError(
                f"path={path!r} was given to the reward {cls.name!r}, which has no weights to load. Leave path out."
            )
        return cls()

    @classmethod
    def companions(cls, weights: Path) -> list[Path]:
        """What shapes a score beside the file or folder of weights that was found: files or folders, there or not.

        Scores count as made by other weights once one of these changes. Called before anything is loaded.
        """
        return [weights.with_name("config.json")] if weights.is_file() else []

    def frames(self, num_frames: int, fps: float) -> Collection[int] | None:
        """Which frames of a clip `score` looks at, from 0; None for all of them.

        What no reward asks for is black in the clips that the suite gives, which saves most of the time and memory of
        decoding. Not called for a reward that needs no video.
        """
        return None

    @abstractmethod
    def score(self, clips: list[AVClip], prompts: list[Prompt]) -> dict[str, Tensor]:
        """One float32 tensor (B,) per column, on any device. NaN means: not defined for this clip."""
