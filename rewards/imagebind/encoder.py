"""ImageBind with its front ends: texts, clips, sounds and frames to embeddings, many at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rewards.base import Protocol
from rewards.imagebind.audio_front_end import SAMPLE_RATE, audio_views
from rewards.imagebind.config import Modality
from rewards.imagebind.network import ImageBind
from rewards.imagebind.tokenizer import TextTokenizer
from rewards.imagebind.video_front_end import frame_pictures, video_views
from rewards.imagebind.views import Views

if TYPE_CHECKING:
    from media.clip import AVClip


class ImageBindEncoder:
    """Embeddings are float32 (B, embed_dim) on the network's device; an average over views is not of unit length.

    What an item gets does not depend on the others of its call. Clips are only decoded arrays here, of any sizes,
    rates and lengths.
    """

    MICRO_BATCH = 64  # inputs of the network at a time: four clips, or 64 frames

    def __init__(self, network: ImageBind, tokenizer: TextTokenizer, protocol: Protocol = "correct") -> None:
        if tokenizer.vocab_size != network.config.text.vocab_size:
            raise ValueError(
                f"The tokenizer has {tokenizer.vocab_size} tokens and the network {network.config.text.vocab_size}: "
                "put the tokenizer beside the weights that they were trained with."
            )
        self.network = network.eval()
        self.tokenizer = tokenizer
        self.protocol: Protocol = protocol
        weight = next(network.parameters())
        self.device, self.dtype = weight.device, weight.dtype

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Tensor:
        unique = list(dict.fromkeys(texts))
        ids = self.tokenizer(unique, self.protocol)
        batches = (self._without_padding(batch) for batch in ids.split(self.MICRO_BATCH) if len(batch))
        places = {text: index for index, text in enumerate(unique)}
        order = torch.tensor([places[text] for text in texts], dtype=torch.int64, device=self.device)
        return self._forward("text", batches)[order]

    @torch.inference_mode()
    def videos(self, clips: Iterable[AVClip]) -> Tensor:
        config = self.network.config.vision
        return self._averages("vision", (video_views(clip.video, clip.fps, config, self.device) for clip in clips))

    @torch.inference_mode()
    def sounds(self, clips: Iterable[AVClip]) -> Tensor:
        """Return one embedding per sound; clips without sound must be left out. Raises ValueError below 25 ms."""
        return self._averages("audio", (self._heard(self.waveform(clip)) for clip in clips))

    @torch.inference_mode()
    def sound_windows(self, clip: AVClip, ranges: Iterable[tuple[int, int]]) -> Tensor:
        """One embedding per range of samples at 16 kHz, (M, embed_dim)."""
        wave = self.waveform(clip)  # one buffer for all: under "javisbench" each window changes what the next one hears
        return self._averages("audio", (self._heard(wave[:, start:stop]) for start, stop in ranges))

    @torch.inference_mode()
    def frames(self, clip: AVClip) -> Tensor:
        """One embedding per frame, (T, embed_dim)."""
        size, step = self.network.config.vision.image_size, self.MICRO_BATCH
        chunks = (clip.video[start : start + step] for start in range(0, clip.num_frames, step))
        return self._forward("vision", (frame_pictures(chunk, size) for chunk in chunks))

    def waveform(self, clip: AVClip) -> Tensor:
        """The sound at 16 kHz, float32 (channels, N), a copy on the device."""
        from torchaudio.functional import resample  # late: not needed for texts and pictures

        # Resampled on the CPU: cuDNN rounds the convolution to TF32, whose noise the log mel would show.
        return resample(torch.tensor(clip.audio), clip.sample_rate, SAMPLE_RATE).to(self.device)

    def _heard(self, wave: Tensor) -> Views:
        config = self.network.config.audio
        return audio_views(wave, config.mel_bins, config.mel_frames, self.protocol)

    def _averages(self, modality: Modality, items: Iterable[Views]) -> Tensor:
        weights: list[Tensor] = []
        views = self._forward(modality, _regrouped(_inputs(items, weights), self.MICRO_BATCH))  # fills `weights`
        parts = views.split([len(part) for part in weights])
        means = [weight @ part for weight, part in zip(weights, parts, strict=True)]
        return torch.stack(means) if means else views

    def _forward(self, modality: Modality, batches: Iterable[Tensor]) -> Tensor:
        """Floating inputs are cast to the network's type; embeddings float32 (N, embed_dim), also for none.

        Raises:
            ValueError: an embedding is not finite, which must not pass for a score that is not defined.
        """
        outputs = [torch.zeros(0, self.network.config.embed_dim, device=self.device)]
        for batch in batches:
            dtype = self.dtype if batch.is_floating_point() else batch.dtype
            outputs.append(self.network(modality, batch.to(self.device, dtype)))
        embeddings = torch.cat(outputs)
        if not embeddings.isfinite().all():
            raise ValueError(
                f"ImageBind gave embeddings of {modality} that are not finite. Load it with dtype='float32' or "
                "'bfloat16'; if that is so already, fetch the weights again."
            )
        return embeddings

    @staticmethod
    def _without_padding(ids: Tensor) -> Tensor:
        """Cut token ids after the last end in the batch. Attention is causal, so the cut changes no embedding."""
        return ids[:, : int(ids.argmax(dim=1).max()) + 1]


def _inputs(items: Iterable[Views], weights: list[Tensor]) -> Iterator[Tensor]:
    for views in items:
        weights.append(views.weights)
        yield views.inputs


def _regrouped(parts: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """The same rows in the same order, in batches of `size`, the last one smaller; few parts are held at a time."""
    waiting: list[Tensor] = []
    for part in parts:
        waiting.append(part)
        if sum(map(len, waiting)) >= size:
            *full, rest = torch.cat(waiting).split(size)
            if len(rest) == size:
                full, rest = [*full, rest], rest[:0]
            yield from full
            waiting = [rest]
    if rows := sum(map(len, waiting)):
        yield torch.cat(waiting)[:rows]
