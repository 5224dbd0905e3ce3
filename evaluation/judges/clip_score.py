"""`clip_score`, the agreement of a clip's frames with its prompt by CLIP."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from rewards.base import Judge, Prompt, Protocol
from rewards.weights import find_weights, float_dtype

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import CLIPImageProcessor, CLIPModel

    from media.clip import AVClip
    from rewards.imagebind.tokenizer import TextTokenizer

NUM_FRAMES = 48
SOURCE = "openai/clip-vit-base-patch32"
FILES = ("config.json", "preprocessor_config.json", "tokenizer.json")


class ClipJudge(Judge):
    """Mean cosine of 48 evenly spaced frames with the prompt, by CLIP ViT-B/32; no factor.

    Source: docs/upstream/metrics.md, section 6.

    A prompt that is longer than CLIP's context is cut. Its text is mended as OpenAI's own tokenizer does, which
    transformers' leaves out. Under "javisbench" CLIP sees red and blue swapped, as in the release.
    """

    name = "clip"
    version = "1"
    outputs: ClassVar[dict[str, int | None]] = {"clip_score": None}
    needs = frozenset({"video", "text"})
    published = "clip-vit-base-patch32"
    protocols = ("correct", "javisbench")

    def __init__(
        self,
        model: CLIPModel,
        processor: CLIPImageProcessor,
        tokenizer: TextTokenizer,
        protocol: Protocol = "correct",
    ) -> None:
        """Raises ValueError for a tokenizer of another size than the model's."""
        text: Any = model.config.text_config
        if tokenizer.vocab_size != text.vocab_size:
            raise ValueError(
                f"The tokenizer has {tokenizer.vocab_size} tokens and the CLIP model {text.vocab_size}: put the files "
                "of one repository into the folder."
            )
        self.model = model
        self.processor = processor
        self.tokenizer = tokenizer
        self.protocol = protocol
        self.version = self.version_under(protocol)

    @classmethod
    def load(
        cls, path: str | None = None, device: str = "cpu", dtype: str = "float32", protocol: Protocol = "correct"
    ) -> Self:
        """Load a folder of transformers' files, such as that of openai/clip-vit-base-patch32.

        Raises:
            ValueError: the folder is not there, or not whole.
        """
        from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

        from evaluation.judges.pretrained import load_model, require_files
        from rewards.imagebind.tokenizer import TextTokenizer

        folder = find_weights(path, cls.name, cls.published)
        require_files(folder, FILES, SOURCE)
        model = load_model(CLIPModel, folder, device, float_dtype(dtype))
        processor = CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
        words = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        text: Any = model.config.text_config
        return cls(model, processor, TextTokenizer(words, text.max_position_embeddings), protocol)

    def frames(self, num_frames: int, fps: float) -> Collection[int]:
        return set(frame_indices(num_frames).tolist())

    def measure(self, clips: list[AVClip], prompts: list[Prompt]) -> dict[str, Tensor]:
        """`clip_score`, float32 (B,) in [-1, 1].

        Raises:
            ValueError: the network gave something that is no number.
        """
        import torch

        from core.devices import exact_convolutions

        scores = torch.empty(len(clips))
        with torch.inference_mode(), exact_convolutions():
            for index, (clip, prompt) in enumerate(zip(clips, prompts, strict=True)):
                cosines = self._see(clip) @ self._read(prompt.prompt)  # one per frame
                scores[index] = cosines.mean()
                if not scores[index].isfinite():
                    raise ValueError(
                        f"CLIP gave a score that is not finite for prompt {prompt.prompt_id!r}. Load it with "
                        "dtype='float32' or 'bfloat16'; if that is so already, fetch the weights again."
                    )
        return {"clip_score": scores}

    def pixels(self, clip: AVClip) -> Tensor:
        """Return the frames that count, each once, as the network's input, float32 (S, 3, size, size)."""
        import torch

        frames = clip.video[np.unique(frame_indices(clip.num_frames))]  # (S, H, W, 3)
        if self.protocol == "javisbench":
            frames = frames[..., ::-1]
        pictures = list(torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2))
        pixels: Tensor = self.processor(images=pictures, input_data_format="channels_first", return_tensors="pt")[
            "pixel_values"
        ]
        return pixels

    def _see(self, clip: AVClip) -> Tensor:
        """Unit vectors float32 (48, D), repeated where the clip has fewer frames."""
        from torch.nn.functional import normalize

        _, places = np.unique(frame_indices(clip.num_frames), return_inverse=True)
        hidden = self.model.vision_model(pixel_values=self.pixels(clip).to(self.model.device, self.model.dtype))
        return normalize(self.model.visual_projection(hidden.pooler_output).float(), dim=-1)[places]

    def _read(self, text: str) -> Tensor:
        """Unit vector float32 (D,). Attention is causal, so padding after the end of the text has no effect."""
        from torch.nn.functional import normalize

        hidden = self.model.text_model(input_ids=self.tokenizer([text], "correct").to(self.model.device))
        return normalize(self.model.text_projection(hidden.pooler_output)[0].float(), dim=-1)


def frame_indices(num_frames: int, count: int = NUM_FRAMES) -> np.ndarray:
    """Evenly spaced frames from the first to the last, int64 (count,); shorter clips repeat some."""
    return np.rint(np.linspace(0, num_frames - 1, count)).astype(np.int64)
