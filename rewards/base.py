"""The interfaces `Judge`, which measures clips, and `Reward`, a judge that yields only scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, get_args

if TYPE_CHECKING:
    from torch import Tensor

    from media.clip import AVClip

Protocol = Literal["correct", "javisbench"]  # "javisbench": as the release measures, defects included

JAVISBENCH_LENGTH_S = 4.0  # the part of a clip that the benchmark's documented commands use, from its start


@dataclass(frozen=True)
class Prompt:
    """The text that a clip was generated from."""

    prompt_id: str
    prompt: str
    audio_prompt: str | None = None  # text for the sound alone, where the table has one


class Judge(ABC):
    """A network or a measurement that yields scores and features of clips.

    Importing the module of a judge is cheap; `load` may be slow. The values of a clip depend on that clip and its
    prompt only, never on the rest of the batch. They are stored by (file, name, version, weights), and by the prompt
    where `needs` names "text".
    """

    name: ClassVar[str]
    version: str  # changes whenever a value could
    outputs: ClassVar[dict[str, int | None]]  # output -> width of its features; None: one score per clip
    needs: ClassVar[frozenset[str]]  # of "video", "audio", "text"
    published: ClassVar[str | None] = None  # file or folder name of the published weights; None: `load` takes no path
    also_published: ClassVar[tuple[str, ...]] = ()  # other names under which `load` accepts the weights
    shares_weights_of: ClassVar[str | None] = None  # the judge whose network this one uses; None: a network of its own
    protocols: ClassVar[tuple[Protocol, ...]] = ("correct",)  # those under which its values differ

    @classmethod
    def version_under(cls, protocol: Protocol) -> str:
        """Return the version of values made under a protocol; a protocol in `protocols` is appended to `version`.

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
        """Return an instance that is ready to measure. This default serves judges without weights and protocols.

        Args:
            path: file or folder of the weights, a folder that holds them under a published name, or a preset's name
                such as "tiny", whose networks were trained on Bounce.
            device: a torch device.
            dtype: type of the network, e.g. "float32" or "bfloat16"; values are float32 in either case.
            protocol: "javisbench" reproduces the release's numbers where they differ from the correct ones.
        """
        if path is not None:
            raise ValueError(f"path={path!r} was given to {cls.name!r}, which has no weights to load. Leave path out.")
        return cls()

    @classmethod
    def companions(cls, weights: Path) -> list[Path]:
        """Return the files and folders beside the weights that change a value, whether they exist or not.

        Values count as made by other weights once one of them changes. Called before anything is loaded.
        """
        return [weights.with_name("config.json")] if weights.is_file() else []

    def frames(self, num_frames: int, fps: float) -> Collection[int] | None:
        """Return the indices of the frames that `measure` uses, counted from 0; None for all of them.

        Frames that no judge asks for are black in the decoded clips, which saves most of the time and memory of
        decoding. Not called for a judge that needs no video.
        """
        return None

    @abstractmethod
    def measure(self, clips: list[AVClip], prompts: list[Prompt]) -> dict[str, Tensor]:
        """Return a float tensor per output, on any device: (B,) for a score, (B, width) for a feature.

        NaN marks a value that is not defined for a clip.
        """


class Reward(Judge):
    """A judge that yields scores only, by which candidates can be ranked. Subclasses define `score`."""

    columns: ClassVar[tuple[str, ...]]
    higher_is_better: ClassVar[dict[str, bool]]  # one entry per column
    licence: ClassVar[str]  # of the weights, as its owner names it

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if hasattr(cls, "columns"):  # an incomplete class is refused when it is looked up, with what it lacks
            cls.outputs = dict.fromkeys(cls.columns)

    def measure(self, clips: list[AVClip], prompts: list[Prompt]) -> dict[str, Tensor]:
        """Return `score`'s columns."""
        return self.score(clips, prompts)

    @abstractmethod
    def score(self, clips: list[AVClip], prompts: list[Prompt]) -> dict[str, Tensor]:
        """Return one float32 tensor (B,) per column, on any device. NaN marks a score that is not defined."""
