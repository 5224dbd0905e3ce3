"""ImageBind as a reward: the agreement of picture and sound, picture and prompt, and sound and prompt."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from rewards.base import Prompt, Protocol, Reward
from rewards.weights import find_weights, float_dtype

if TYPE_CHECKING:
    from torch import Tensor

    from media.clip import AVClip
    from rewards.imagebind.encoder import ImageBindEncoder

COSINE_EPS = 1e-6
# Files that the tokenizer beside the weights is read from, in order of preference.
TOKENIZER_FILES = (
    "bpe_simple_vocab_16e6.txt.gz",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "tokenizer",
)


class ImageBindReward(Reward):
    """Cosines of ImageBind embeddings (docs/upstream/imagebind.md, section 7).

    `ib_tv`: prompt and picture; `ib_ta`: prompt of the sound, else the prompt, and sound; `ib_av`: sound and picture.
    NaN where a clip has no audio track. Under "javisbench" prompts of more than 75 tokens are all embedded alike, and
    the clips of a sound disturb each other, as in the release.
    """

    name = "imagebind"
    version = "1"
    columns = ("ib_tv", "ib_ta", "ib_av")
    higher_is_better: ClassVar[dict[str, bool]] = {"ib_tv": True, "ib_ta": True, "ib_av": True}
    needs = frozenset({"video", "audio", "text"})
    licence = "CC BY-NC-SA 4.0 (non-commercial)"
    published = "imagebind_huge.pth"
    protocols = ("correct", "javisbench")

    def __init__(self, encoder: ImageBindEncoder) -> None:
        self.encoder = encoder
        self.version = self.version_under(encoder.protocol)

    @classmethod
    def load(
        cls,
        path: str | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        protocol: Protocol = "correct",
    ) -> Self:
        """Load `imagebind_huge.pth` with CLIP's vocabulary file beside it, or a folder with a `config.json` as well."""
        from rewards.imagebind.loading import load_encoder

        found = find_weights(path, cls.name, cls.published)
        return cls(load_encoder(found, device, float_dtype(dtype), protocol))

    @classmethod
    def companions(cls, weights: Path) -> list[Path]:
        beside = [weights.with_name(name) for name in TOKENIZER_FILES] if weights.is_file() else []
        return super().companions(weights) + beside

    def frames(self, num_frames: int, fps: float) -> Collection[int]:
        from rewards.imagebind.video_front_end import clip_frames

        frames_per_clip = self.encoder.network.config.vision.frames_per_clip
        return {index for clip in clip_frames(num_frames, fps, frames_per_clip) for index in clip}

    def score(self, clips: list[AVClip], prompts: list[Prompt]) -> dict[str, Tensor]:
        """Cosines in [-1, 1].

        Raises:
            ValueError: a sound is shorter than 25 ms, there are not as many prompts as clips, or the network gave
                something that is no number.
        """
        import torch
        from torch.nn.functional import cosine_similarity

        texts = [prompt.prompt for prompt, _ in zip(prompts, clips, strict=True)]
        sound_texts = [prompt.audio_prompt or prompt.prompt for prompt in prompts]
        text, sound_text = self.encoder.texts(texts + sound_texts).chunk(2)  # each (B, embed_dim)
        video = self.encoder.videos(clips)
        sound = torch.full_like(video, float("nan"))
        heard = torch.tensor([clip.has_audio for clip in clips], dtype=torch.bool, device=video.device)
        sound[heard] = self.encoder.sounds(clip for clip in clips if clip.has_audio)
        pairs = {"ib_tv": (text, video), "ib_ta": (sound_text, sound), "ib_av": (sound, video)}
        return {column: cosine_similarity(*pair, eps=COSINE_EPS) for column, pair in pairs.items()}
