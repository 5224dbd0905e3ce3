"""Encoder of clips: latents and text embeddings by the codecs and the text encoder of a model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from model.data.buckets import Bucket, BucketTable
from model.data.clip_samples import ClipForm, ClipSample
from model.data.latent_dataset import LatentSample
from model.javisdit.codecs.interface import AudioCodec, VideoCodec
from model.javisdit.pipeline import JointAVPipeline


class ClipEncoder:
    """Encoder of `ClipSample`s; the network of the model is never loaded."""

    def __init__(self, pipeline: JointAVPipeline) -> None:
        self.pipeline = pipeline

    @torch.inference_mode()
    def __call__(self, samples: Sequence[ClipSample]) -> list[LatentSample]:
        """Encode samples to latents (C, T, H, W) and (C, T, M) and captions (length, text_dim), float32 on the CPU.

        Samples of one shape are encoded together, which may change the last bits of a result.
        """
        latents: list[dict[str, Tensor]] = [{} for _ in samples]
        videos = {row: sample.video for row, sample in enumerate(samples) if sample.video is not None}
        waveforms = {row: sample.waveform for row, sample in enumerate(samples)}
        for row, encoded in self._encode(self.pipeline.video_codec, videos).items() if videos else ():
            latents[row]["video"] = encoded
        for row, encoded in self._encode(self.pipeline.audio_codec, waveforms).items():
            latents[row]["audio"] = encoded
        return [
            LatentSample(one.clip_id, one.epoch, encoded, text, one.num_frames, one.height, one.width)
            for one, encoded, text in zip(samples, latents, self.texts([one.prompt for one in samples]), strict=True)
        ]

    def texts(self, prompts: Sequence[str]) -> list[Tensor]:
        """Return embeddings (length, text_dim) without padding."""
        return [embedding.float().cpu() for embedding in self.pipeline.encode_text(prompts).trimmed()]

    def negative_text(self) -> Tensor:
        """Return the padded embedding (text_len, text_dim) of the negative prompt, which replaces dropped captions."""
        return self.pipeline.encode_text([self.pipeline.defaults.negative_prompt]).embeds[0].float().cpu().contiguous()

    def latent_sizes(self, table: BucketTable, bucket: Bucket, form: ClipForm) -> dict[str, tuple[int, ...]]:
        """Return the latent size, without channels, of a bucket's clips by modality.

        Raises:
            ValueError: a codec cannot encode such clips.
        """
        sizes: dict[str, tuple[int, ...]] = {}
        if not form.audio_only:
            sizes["video"] = self.pipeline.video_codec.latent_size(bucket.num_frames, *table.size(bucket))
        return sizes | {"audio": self.pipeline.audio_codec.latent_size(form.num_samples(bucket.num_frames))}

    def _encode(self, codec: VideoCodec | AudioCodec, inputs: dict[int, Tensor]) -> dict[int, Tensor]:
        groups: dict[torch.Size, list[int]] = {}
        for row, tensor in inputs.items():
            groups.setdefault(tensor.shape, []).append(row)
        encoded: dict[int, Tensor] = {}
        for rows in groups.values():
            batch = torch.stack([inputs[row] for row in rows]).to(self.pipeline.device)
            encoded |= zip(rows, codec.encode(batch).cpu(), strict=True)
        return encoded
