"""The reward class. Torch and transformers are imported when it loads, so that its lookup stays cheap."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

from rewards.base import Prompt, Protocol, Reward
from rewards.weights import find_weights, float_dtype

if TYPE_CHECKING:
    from torch import Tensor

    from media.clip import AVClip
    from rewards.audiobox.network import AestheticsNetwork
    from rewards.audiobox.windows import Windows


class AudioBoxReward(Reward):
    """AudioBox-Aesthetics: four axes of a sound, each about 1 to 10, and their mean as `audio_quality`.

    Production complexity says how much is going on rather than how good it is; the mean has it all the same, as
    JavisBench's does. Prompts are not read. Undefined (NaN) for a clip without an audio track.
    """

    name = "audiobox"
    version = "1"
    columns = (
        "audio_quality",
        "content_enjoyment",
        "content_usefulness",
        "production_complexity",
        "production_quality",
    )
    higher_is_better: ClassVar[dict[str, bool]] = dict.fromkeys(columns, True)
    needs = frozenset({"audio"})
    licence = "CC BY 4.0"
    published = "audiobox-aesthetics"
    protocols = ("correct", "javisbench")

    MICRO_BATCH: ClassVar[int] = 8  # windows in one forward; a full-size one takes about 0.2 GB

    def __init__(self, network: AestheticsNetwork, protocol: Protocol = "correct") -> None:
        self.network = network.eval()
        self.protocol = protocol
        self.version = self.version_under(protocol)

    @classmethod
    def load(
        cls,
        path: str | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        protocol: Protocol = "correct",
    ) -> Self:
        """Load the published folder (`config.json`, `model.safetensors`), its `checkpoint.pt`, or a preset.

        Under `protocol="javisbench"` sound that is not at 16 kHz is not resampled, only made quieter, and every sound
        is cut or zero-padded to 4 s, with the padding scored as sound.

        Raises:
            ValueError: no weights are there, or they are not this network's.
        """
        from rewards.audiobox.checkpoint import load_network

        network = load_network(find_weights(path, cls.name, cls.published), float_dtype(dtype))
        return cls(network.to(device), protocol)

    def score(self, clips: list[AVClip], prompts: list[Prompt]) -> dict[str, Tensor]:
        """One float32 tensor (B,) per column, on the CPU; windows of all clips share the forward passes.

        Raises:
            ValueError: the network gave something that is no number, which must not pass for a clip without sound.
        """
        import torch

        from rewards.audiobox.windows import cut_windows, to_javisbench_mono, to_mono

        heard = [index for index, clip in enumerate(clips) if clip.has_audio]
        scores = torch.full((len(clips), len(self.columns)), torch.nan)
        if heard:
            front_end = to_mono if self.protocol == "correct" else to_javisbench_mono
            windows = cut_windows([front_end(clips[index].audio, clips[index].sample_rate) for index in heard])
            axes = self._average(windows, len(heard))  # (heard, 4)
            if not axes.isfinite().all():
                broken = heard[int(axes.isfinite().all(dim=1).int().argmin())]
                raise ValueError(
                    f"AudioBox gave scores that are not finite for clip {broken} of {len(clips)}. Load it with "
                    "dtype='float32' or 'bfloat16'; if that is so already, fetch the weights again."
                )
            scores[heard] = torch.cat([axes.mean(dim=1, keepdim=True), axes], dim=1).float()
        return dict(zip(self.columns, scores.unbind(1), strict=True))

    def _average(self, windows: Windows, num_sounds: int) -> Tensor:
        """Scores of each sound, float64 (num_sounds, 4): the mean over its windows, by how much sound they hold."""
        import torch

        weight = windows.num_valid.double()
        total = torch.zeros(num_sounds).double().index_add(0, windows.owner, weight)
        scores = self.network.to_scores(self.predict(windows)) * weight[:, None]
        return torch.zeros(num_sounds, scores.shape[1]).double().index_add(0, windows.owner, scores) / total[:, None]

    def predict(self, windows: Windows) -> Tensor:
        """The network's predictions, float32 (N, 4) on the CPU, in the order of the windows."""
        import torch

        from core.devices import exact_convolutions
        from rewards.audiobox.windows import group_by_length

        device = next(self.network.parameters()).device
        predictions = torch.empty(len(windows.owner), 4)
        with torch.inference_mode(), exact_convolutions():
            for chosen in group_by_length(windows.num_valid, self.MICRO_BATCH):
                batch = windows.samples[chosen].to(device)
                predictions[chosen] = self.network(batch, windows.num_valid[chosen]).cpu()
        return predictions
