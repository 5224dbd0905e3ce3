"""`desync`, the offset of picture and sound in seconds, by Synchformer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Self

from rewards.base import JAVISBENCH_LENGTH_S, Prompt, Protocol, Reward
from rewards.weights import find_weights, float_dtype

if TYPE_CHECKING:
    from torch import Tensor

    from media.clip import AVClip
    from rewards.synchformer.network import Synchformer


class SynchformerReward(Reward):
    """The DeSync score: the absolute offset that a classifier finds most likely, averaged over windows of a clip.

    A window is 14 segments (4.8 s). In shorter clips the segments are repeated, so scores of clips of different lengths
    do not compare. Under "correct" a clip is looked at in its own length, and its picture decides what that is; under
    "javisbench" in its first 4 s, filled up with black frames and silence, and with the release's averaging.
    """

    name = "synchformer"
    version = "1"
    columns = ("desync",)
    higher_is_better: ClassVar[dict[str, bool]] = {"desync": False}
    needs = frozenset({"video", "audio"})
    licence = "none of its own; treat as non-commercial (CC BY-NC 4.0)"
    published = "synchformer_state_dict.pth"
    protocols = ("correct", "javisbench")

    def __init__(self, network: Synchformer, protocol: Protocol = "correct") -> None:
        from rewards.synchformer.windows import offset_grid

        self.network = network.eval().requires_grad_(False)
        self.protocol = protocol
        self.version = self.version_under(protocol)
        config = network.config
        self.offsets_s: Tensor = offset_grid(config.num_offsets, config.max_offset_s)  # > 0: the sound is early

    @classmethod
    def load(
        cls,
        path: str | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        protocol: Protocol = "correct",
    ) -> Self:
        """The reward with the weights in `path`: the published file, its folder, or a preset such as "tiny".

        Raises:
            ValueError: there are no weights, they are those of another model, or `dtype` is no float type.
        """
        from rewards.synchformer.loading import load_network

        found = find_weights(path, cls.name, cls.published)
        return cls(load_network(found, device, float_dtype(dtype)), protocol)

    def score(self, clips: list[AVClip], prompts: list[Prompt]) -> dict[str, Tensor]:
        """`desync` in seconds, float32 (B,); NaN for a clip without sound. Prompts play no part."""
        import torch

        from rewards.synchformer.windows import desync, desync_as_released

        scores = torch.full((len(clips),), math.nan)
        logits = self._window_logits(clips)
        if logits and self.protocol == "javisbench":  # clips of one length, so of as many windows each
            scores[list(logits)] = desync_as_released(torch.stack([*logits.values()]), self.offsets_s)
        else:
            for index, windows in logits.items():
                scores[index] = desync(windows, self.offsets_s)
        return {"desync": scores}

    def offset_distribution(self, clips: list[AVClip]) -> Tensor:
        """Probability of each of `offsets_s`, averaged over the windows of a clip.

        Returns:
            float32 (B, num_offsets); NaN for a clip without sound.
        """
        import torch

        distribution = torch.full((len(clips), len(self.offsets_s)), math.nan)
        for index, windows in self._window_logits(clips).items():
            distribution[index] = windows.softmax(dim=-1).mean(dim=0)
        return distribution

    def _window_logits(self, clips: list[AVClip]) -> dict[int, Tensor]:
        """Index of each clip that has sound -> float32 (W, num_offsets).

        Raises:
            ValueError: the network gave something that is no number, in which the likeliest offset would be arbitrary.
        """
        from rewards.synchformer.inference import window_logits

        sounding = {index: clip for index, clip in enumerate(clips) if clip.has_audio}
        num_segments = [self._num_segments(clip) for clip in sounding.values()]
        logits = dict(zip(sounding, window_logits(self.network, [*sounding.values()], num_segments), strict=True))
        for index, windows in logits.items():
            if not windows.isfinite().all():
                raise ValueError(
                    f"Synchformer gave logits that are not finite for clip {index} of {len(clips)}. Load it with "
                    "dtype='float32' or 'bfloat16'; if that is so already, fetch the weights again."
                )
        return logits

    def _num_segments(self, clip: AVClip) -> int:
        from rewards.synchformer.frontends import frame_indices

        config = self.network.config
        if self.protocol == "javisbench":
            return config.count_segments(int(config.fps * JAVISBENCH_LENGTH_S))
        return config.count_segments(len(frame_indices(clip.num_frames, clip.fps, config.fps)))
