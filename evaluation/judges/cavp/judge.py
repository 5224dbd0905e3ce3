"""`cavp_score`, the agreement of sound and picture at each quarter of a second.

Source: docs/upstream/metrics.md, section 8.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from rewards.base import Judge, Prompt, Protocol
from rewards.weights import CONFIG_NAME, find_weights, float_dtype

if TYPE_CHECKING:
    from torch import Tensor

    from evaluation.judges.cavp.network import Cavp
    from media.clip import AVClip


class CavpJudge(Judge):
    """Mean cosine of frames and sound over the whole seconds of a clip; NaN for one without an audio track.

    Both protocols share one definition. The release differs in two ways that cannot be reproduced: it scores frames
    of a video that it has encoded once more, and gives 0.0 where anything fails, which is an error here.
    """

    name = "cavp"
    version = "1"
    outputs: ClassVar[dict[str, int | None]] = {"cavp_score": None}
    needs = frozenset({"video", "audio"})
    published = "Diff-Foley/diff_foley_ckpt/cavp_epoch66.ckpt"  # as in its repository

    def __init__(self, network: Cavp) -> None:
        self.network = network.eval().requires_grad_(False)

    @classmethod
    def load(
        cls, path: str | None = None, device: str = "cpu", dtype: str = "float32", protocol: Protocol = "correct"
    ) -> Self:
        """Load Diff-Foley's `cavp_epoch66.ckpt`, or a folder with weights and a `config.json`.

        Raises:
            ValueError: there are no weights, they are those of another model, or `dtype` is no float type.
        """
        from evaluation.judges.cavp.loading import load_network

        return cls(load_network(find_weights(path, cls.name, cls.published), device, float_dtype(dtype)))

    @classmethod
    def companions(cls, weights: Path) -> list[Path]:
        return [weights.with_name(CONFIG_NAME)] if weights.is_file() else []

    def frames(self, num_frames: int, fps: float) -> Collection[int]:
        from evaluation.judges.cavp.front_end import shown_frames, whole_seconds

        return set(shown_frames(num_frames, fps).tolist()) if whole_seconds(num_frames, fps) else set()

    def measure(self, clips: list[AVClip], prompts: list[Prompt]) -> dict[str, Tensor]:
        """`cavp_score` in [-1, 1], float32 (B,); prompts play no part.

        Raises:
            ValueError: a clip is shorter than a second, or the network gave something that is no number.
        """
        import torch

        return {"cavp_score": torch.tensor([self._score(clip) for clip in clips], dtype=torch.float32)}

    def _score(self, clip: AVClip) -> float:
        if not clip.has_audio:
            return float("nan")
        frames, steps = self.embeddings(clip)
        score = (frames * steps).sum(dim=-1).mean()
        if not score.isfinite():
            raise ValueError(
                "CAVP gave embeddings that are not finite. Load it with dtype='float32' or 'bfloat16'; if that is so "
                "already, fetch the weights again."
            )
        return score.item()

    def embeddings(self, clip: AVClip) -> tuple[Tensor, Tensor]:
        """Return the embeddings of frames and of sound, each float32 (4 * seconds, embed_dim), of unit length."""
        import torch

        from core.devices import exact_convolutions
        from evaluation.judges.cavp.front_end import log_mel, pictures, shown_frames, waveform, whole_seconds

        seconds = whole_seconds(clip.num_frames, clip.fps)
        if seconds < 1:
            raise ValueError(
                f"CAVP scores whole seconds, and the clip has {clip.duration_s:.2f} s: give clips of a second or more."
            )
        config, weight = self.network.config, self.network.video_project_head.weight
        seen = pictures(clip.video, shown_frames(clip.num_frames, clip.fps), config.image_size).to(weight)
        heard = log_mel(waveform(clip, seconds)).to(weight)
        with torch.inference_mode(), exact_convolutions():
            blocks = [self.network.encode_frames(block[None])[0] for block in seen.split(config.frames_at_once, dim=1)]
            return torch.cat(blocks).float(), self.network.encode_sound(heard[None])[0].float()
