"""`audioclip`, the features that the Frechet audio distance of JavisBench compares."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Self

from evaluation.judges.audioclip.config import EMBED_DIM
from rewards.base import JAVISBENCH_LENGTH_S, Judge, Prompt, Protocol
from rewards.weights import find_weights, float_dtype

if TYPE_CHECKING:
    from torch import Tensor

    from evaluation.judges.audioclip.network import AudioHead
    from media.clip import AVClip

SAMPLE_RATE = 44_100  # Hz, that the front end was built for
JAVISBENCH_SAMPLE_RATE = 16_000
FULL_SCALE = 32_768.0  # the network was trained on samples in 16-bit units


class AudioClipJudge(Judge):
    """Embeddings of AudioCLIP's audio head, not normalised; NaN for a clip without sound.

    Source: docs/upstream/metrics.md, section 4.

    By default a sound is heard whole, at 44.1 kHz and at the level that the network was trained on. Under "javisbench"
    it is resampled to 16 kHz, cut or zero-padded to 4 s, and fed as is: as though it were at 44.1 kHz, and in [-1, 1]
    where the network expects 16-bit units, which leaves steps of 1/256 and adds a constant of 0.5.

    With procedural weights the embeddings are those of the public implementation. Not checked: the
    published weights themselves, and the release's features. These differ in one respect that no value of a single
    clip can follow: public copies of its loader never leave training mode, so that its batch norms take the statistics
    of the eight sounds of a batch. Here they are the learned ones under both protocols, and features from the release's
    cache are not to be compared with these.
    """

    name = "audioclip"
    version = "1"
    outputs: ClassVar[dict[str, int | None]] = {"audioclip": EMBED_DIM}
    needs = frozenset({"audio"})
    published = "AudioCLIP-Full-Training.pt"
    protocols = ("correct", "javisbench")

    def __init__(self, network: AudioHead, protocol: Protocol = "correct") -> None:
        self.network = network.eval()
        self.protocol = protocol
        self.version = self.version_under(protocol)

    @classmethod
    def load(
        cls, path: str | None = None, device: str = "cpu", dtype: str = "float32", protocol: Protocol = "correct"
    ) -> Self:
        """Load the audio head of `AudioCLIP-Full-Training.pt`, or of a folder with it.

        Raises:
            ValueError: there are no weights, or they are not those of AudioCLIP.
        """
        from evaluation.judges.audioclip.loading import load_network

        found = find_weights(path, cls.name, cls.published)
        return cls(load_network(found, device, float_dtype(dtype)), protocol)

    def measure(self, clips: list[AVClip], prompts: list[Prompt]) -> dict[str, Tensor]:
        """`audioclip`, float32 (B, 1024). Prompts play no part.

        Raises:
            ValueError: the network gave something that is no number.
        """
        import torch

        from core.devices import exact_convolutions

        features = torch.full((len(clips), EMBED_DIM), math.nan)
        with torch.inference_mode(), exact_convolutions():
            for index, clip in enumerate(clips):
                if not clip.has_audio:
                    continue
                samples = self.samples(clip).to(self.network.window.device)
                features[index] = self.network(samples[None])[0].float()
                if not features[index].isfinite().all():
                    raise ValueError(
                        f"AudioCLIP gave features that are not finite for clip {index} of {len(clips)}. Load it with "
                        "dtype='float32' or 'bfloat16'; if that is so already, fetch the weights again."
                    )
        return {"audioclip": features}

    def samples(self, clip: AVClip) -> Tensor:
        """Return the input of the network, float32 (N,)."""
        from torch.nn.functional import pad

        from evaluation.judges.sound import mono_sound

        if self.protocol == "correct":
            return mono_sound(clip, SAMPLE_RATE) * FULL_SCALE
        length = int(JAVISBENCH_LENGTH_S * JAVISBENCH_SAMPLE_RATE)
        sound = mono_sound(clip, JAVISBENCH_SAMPLE_RATE)[:length]
        return pad(sound, (0, length - len(sound)))
