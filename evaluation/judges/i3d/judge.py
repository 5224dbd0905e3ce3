"""The judge of I3D. Torch is imported when it loads, so that its lookup stays cheap."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, ClassVar, Self

from rewards.base import Judge, Prompt, Protocol
from rewards.weights import find_weights, float_dtype

if TYPE_CHECKING:
    from torch import Tensor

    from evaluation.judges.i3d.loading import ScriptedI3D
    from evaluation.judges.i3d.network import I3D
    from media.clip import AVClip


class I3DJudge(Judge):
    """`i3d`: the 400 class logits of I3D over 24 frames of the whole clip, for FVD and KVD.

    Under "javisbench" the pictures have the release's grey levels (see `frames`), so the features of one protocol do
    not compare with those of the other.
    """

    name = "i3d"
    version = "1"
    outputs: ClassVar[dict[str, int | None]] = {"i3d": 400}
    needs = frozenset({"video"})
    published = "i3d_pretrained_400.pt"
    also_published = ("i3d_torchscript.pt",)
    protocols = ("correct", "javisbench")

    MICRO_BATCH: ClassVar[int] = 4  # clips in one forward, about 0.7 GB at full size

    def __init__(
        self, network: I3D | ScriptedI3D, device: str = "cpu", dtype: str = "float32", protocol: Protocol = "correct"
    ) -> None:
        self.dtype = float_dtype(dtype)
        self.device = device
        self.network = network.to(device, self.dtype).eval().requires_grad_(False)
        self.protocol = protocol
        self.version = self.version_under(protocol)

    @classmethod
    def load(
        cls, path: str | None = None, device: str = "cpu", dtype: str = "float32", protocol: Protocol = "correct"
    ) -> Self:
        """Load `i3d_pretrained_400.pt` (or the same as safetensors), `i3d_torchscript.pt`, or a folder with either.

        Raises:
            ValueError: no weights are there, they are not this network's, or `dtype` is no float type.
        """
        from evaluation.judges.i3d.loading import load_network

        found = find_weights(path, cls.name, cls.published, *cls.also_published)
        return cls(load_network(found, device), device, dtype, protocol)

    def frames(self, num_frames: int, fps: float) -> Collection[int]:
        """The 24 evenly spaced frames, or fewer where a clip has fewer."""
        from evaluation.judges.i3d.frames import frame_indices

        return set(frame_indices(num_frames).tolist())

    def measure(self, clips: list[AVClip], prompts: list[Prompt]) -> dict[str, Tensor]:
        """`i3d`, float32 (B, 400) on the CPU. Prompts play no part.

        Raises:
            ValueError: the network gave something that is no number, or a TorchScript file is of another network.
        """
        import torch

        features = torch.empty(len(clips), 400)
        for start in range(0, len(clips), self.MICRO_BATCH):
            features[start : start + self.MICRO_BATCH] = self._logits(clips[start : start + self.MICRO_BATCH])
        if not features.isfinite().all():
            broken = int(features.isfinite().all(dim=1).int().argmin())
            raise ValueError(
                f"I3D gave logits that are not finite for clip {broken} of {len(clips)}. Load it with dtype='float32'; "
                "if that is so already, fetch the weights again."
            )
        return {"i3d": features}

    def _logits(self, clips: list[AVClip]) -> Tensor:
        import torch

        from core.devices import exact_convolutions
        from evaluation.judges.i3d.frames import prepare_frames

        videos = [prepare_frames(clip, self.network.config.image_size, self.protocol) for clip in clips]
        with torch.inference_mode(), exact_convolutions():
            return self.network(torch.stack(videos).to(self.device, self.dtype)).float().cpu()
