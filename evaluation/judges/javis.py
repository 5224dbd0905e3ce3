"""AVHScore and JavisScore, the agreement of sound and picture by ImageBind, as a judge.

Source: docs/upstream/metrics.md, section 9.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from rewards.base import Judge, Prompt, Protocol
from rewards.imagebind.reward import ImageBindReward
from rewards.weights import find_weights, float_dtype

if TYPE_CHECKING:
    from torch import Tensor

    from media.clip import AVClip
    from rewards.imagebind.encoder import ImageBindEncoder


class JavisJudge(Judge):
    """`avh_score` and `javis_score` of whole clips, cosines in [-1, 1]; NaN for a clip without an audio track.

    The protocols differ in how windows of the JavisScore are rounded and in how ImageBind hears a sound, see
    `rewards.imagebind`. The weights are those of the reward "imagebind".
    """

    name = "javis"
    version = "1"
    outputs: ClassVar[dict[str, int | None]] = {"avh_score": None, "javis_score": None}
    needs = frozenset({"video", "audio"})
    published = ImageBindReward.published
    shares_weights_of = ImageBindReward.name
    protocols = ("correct", "javisbench")

    def __init__(self, encoder: ImageBindEncoder) -> None:
        self.encoder = encoder
        self.version = self.version_under(encoder.protocol)

    @classmethod
    def load(
        cls, path: str | None = None, device: str = "cpu", dtype: str = "float32", protocol: Protocol = "correct"
    ) -> Self:
        """Load `imagebind_huge.pth` with CLIP's vocabulary file beside it, or a folder with a `config.json` as well.

        Raises:
            ValueError: there are no weights, they are those of another model, or `dtype` is no float type.
        """
        from rewards.imagebind.loading import load_encoder

        found = find_weights(path, ImageBindReward.name, ImageBindReward.published)
        return cls(load_encoder(found, device, float_dtype(dtype), protocol))

    @classmethod
    def companions(cls, weights: Path) -> list[Path]:
        return ImageBindReward.companions(weights)

    def measure(self, clips: list[AVClip], prompts: list[Prompt]) -> dict[str, Tensor]:
        """Both scores, float32 (B,); prompts play no part.

        Raises:
            ValueError: a sound is shorter than 25 ms, or the network gave something that is no number.
        """
        import torch

        from evaluation.judges.javis_score import sync_scores

        scores = torch.tensor([sync_scores(self.encoder, clip) for clip in clips], dtype=torch.float32).view(-1, 2)
        return dict(zip(self.outputs, scores.unbind(1), strict=True))
