"""`clap_score`, the agreement of sound and text by CLAP, and CLAP's features for FAD."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from rewards.base import Judge, Prompt, Protocol
from rewards.weights import find_weights, float_dtype

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import ClapFeatureExtractor, ClapModel

    from media.clip import AVClip

SOURCE = "laion/clap-htsat-unfused"
FILES = ("config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")


class ClapJudge(Judge):
    """Cosine of a sound with its text, by CLAP (docs/upstream/metrics.md, section 7), and the sound's embedding.

    The text is `audio_prompt` where the table has one, else the prompt; it is cut where it exceeds the network's
    context. `clap_audio` has unit length, as transformers returns it. A sound of up to 10 s is heard as in the release,
    repeated to 10 s. Of a longer one the release hears 10 s at a random place; here the embeddings of windows that
    cover all of it are averaged. Both outputs are undefined (NaN) for a clip without sound.
    """

    name = "clap"
    version = "1"
    outputs: ClassVar[dict[str, int | None]] = {"clap_score": None, "clap_audio": 512}  # the width as published
    needs = frozenset({"audio", "text"})
    published = "clap-htsat-unfused"

    def __init__(self, model: ClapModel, front_end: ClapFeatureExtractor, tokenizer: Any) -> None:
        """Raises ValueError for a model with feature fusion, which hears random pieces of a sound."""
        audio: Any = model.config.audio_config
        if audio.enable_fusion:
            raise ValueError(f"This CLAP model fuses random pieces of a sound: give one without fusion, as {SOURCE}.")
        self.model = model
        self.front_end = front_end
        self.tokenizer = tokenizer
        self.width: int = model.config.projection_dim
        self.outputs = {"clap_score": None, "clap_audio": self.width}  # type: ignore[misc]  # a reduced one is narrower

    @classmethod
    def load(
        cls, path: str | None = None, device: str = "cpu", dtype: str = "float32", protocol: Protocol = "correct"
    ) -> Self:
        """Load a folder of transformers' files, such as that of laion/clap-htsat-unfused.

        Args:
            protocol: both are the same.

        Raises:
            ValueError: the folder is not there, not whole, or of a model with feature fusion.
        """
        from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

        from evaluation.judges.pretrained import load_model, require_files

        folder = find_weights(path, cls.name, cls.published)
        require_files(folder, FILES, SOURCE)
        model = load_model(ClapModel, folder, device, float_dtype(dtype))
        front_end = ClapFeatureExtractor.from_pretrained(folder, local_files_only=True)
        return cls(model, front_end, AutoTokenizer.from_pretrained(folder, local_files_only=True))

    def measure(self, clips: list[AVClip], prompts: list[Prompt]) -> dict[str, Tensor]:
        """`clap_score` float32 (B,) in [-1, 1] and `clap_audio` float32 (B, width).

        Raises:
            ValueError: the network gave something that is no number.
        """
        import torch

        from core.devices import exact_convolutions

        scores = torch.full((len(clips),), math.nan)
        features = torch.full((len(clips), self.width), math.nan)
        with torch.inference_mode(), exact_convolutions():
            for index, (clip, prompt) in enumerate(zip(clips, prompts, strict=True)):
                if not clip.has_audio:
                    continue
                sound = self._hear(clip)
                features[index] = sound
                scores[index] = sound @ self._read(prompt.audio_prompt or prompt.prompt)
                if not (scores[index].isfinite() and sound.isfinite().all()):
                    raise ValueError(
                        f"CLAP gave values that are not finite for prompt {prompt.prompt_id!r}. Load it with "
                        "dtype='float32' or 'bfloat16'; if that is so already, fetch the weights again."
                    )
        return {"clap_score": scores, "clap_audio": features}

    def _hear(self, clip: AVClip) -> Tensor:
        """Unit vector float32 (width,)."""
        from torch.nn.functional import normalize

        from evaluation.judges.sound import mono_sound

        rate = self.front_end.sampling_rate
        windows = cover(mono_sound(clip, rate).numpy(), self.front_end.nb_max_samples)
        # The default of `truncation` is for models with fusion; windows of this length are not cut.
        inputs = self.front_end(windows, truncation="rand_trunc", sampling_rate=rate, return_tensors="pt")
        mel = inputs["input_features"].to(self.model.device, self.model.dtype)  # (W, 1, frames, bands)
        hidden = self.model.audio_model(input_features=mel)
        embeddings = normalize(self.model.audio_projection(hidden.pooler_output).float(), dim=-1)
        return normalize(embeddings.mean(dim=0), dim=-1)

    def _read(self, text: str) -> Tensor:
        """Unit vector float32 (width,)."""
        from torch.nn.functional import normalize

        config: Any = self.model.config.text_config
        longest = (
            config.max_position_embeddings - config.pad_token_id - 1
        )  # RoBERTa counts from behind the padding's id
        inputs = self.tokenizer(text, truncation=True, max_length=longest, return_tensors="pt").to(self.model.device)
        hidden = self.model.text_model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        return normalize(self.model.text_projection(hidden.pooler_output)[0].float(), dim=-1)


def cover(sound: np.ndarray, length: int) -> list[np.ndarray]:
    """Return the fewest evenly spaced windows of `length` samples that cover a sound (samples,), or a shorter one."""
    count = math.ceil(len(sound) / length)
    starts = np.rint(np.linspace(0, max(0, len(sound) - length), count)).astype(np.int64)
    return [sound[start : start + length] for start in starts]
