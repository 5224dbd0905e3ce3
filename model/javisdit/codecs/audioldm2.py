"""AudioLDM2's audio codec: diffusers' `AutoencoderKL` on log-mel, with transformers' `SpeechT5HifiGan` as vocoder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor, nn
from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

from core.state_files import StateFiles
from media.mel import HOP_LENGTH, N_FFT, NUM_MELS, SAMPLE_RATE, log_mel, normalize_waveform
from model.javisdit.codecs.audio_lengths import LengthRule, num_mel_frames
from model.javisdit.codecs.files import load_network, read_config, save_network

VAE_FOLDER, VOCODER_FOLDER = "vae", "vocoder"


class AudioLDM2Codec(nn.Module):
    """Codec between waveforms and latents; one latent covers 4 mel frames and 4 bands.

    Latents are multiplied by the scaling factor in the autoencoder's config.

    Raises:
        ValueError: if the vocoder was made for another front end than 64 bands, 16 kHz and 160 samples per frame.
    """

    def __init__(self, autoencoder: AutoencoderKL, vocoder: SpeechT5HifiGan) -> None:
        super().__init__()
        config = vocoder.config
        found = (config.model_in_dim, config.sampling_rate, math.prod(config.upsample_rates))
        if found != (NUM_MELS, SAMPLE_RATE, HOP_LENGTH):
            raise ValueError(
                f"The vocoder expects {found[0]} mel bands, {found[1]} Hz and {found[2]} samples per frame, but the "
                f"mel front end has {NUM_MELS}, {SAMPLE_RATE} and {HOP_LENGTH}: use AudioLDM2's vocoder."
            )
        self.autoencoder = autoencoder
        self.vocoder = vocoder

    @classmethod
    def from_pretrained(cls, folder: str | Path, dtype: torch.dtype = torch.float32) -> Self:
        """Read `vae/` and `vocoder/` of an AudioLDM2 folder.

        Raises:
            ValueError: if a config is missing, or the tensors do not match it.
        """
        vae, vocoder = Path(folder) / VAE_FOLDER, Path(folder) / VOCODER_FOLDER
        vae_config, vocoder_config = read_config(vae), SpeechT5HifiGanConfig.from_dict(read_config(vocoder))
        return cls(
            load_network(lambda: AutoencoderKL.from_config(vae_config), StateFiles(vae).tensors(dtype), str(vae)),
            load_network(lambda: SpeechT5HifiGan(vocoder_config), StateFiles(vocoder).tensors(dtype), str(vocoder)),
        )

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write `vae/` and `vocoder/`; `dtype` casts the stored weights."""
        save_network(self.autoencoder, Path(folder) / VAE_FOLDER, dtype)
        save_network(self.vocoder, Path(folder) / VOCODER_FOLDER, dtype)

    @property
    def latent_channels(self) -> int:
        return self.autoencoder.config["latent_channels"]

    @property
    def downsampling(self) -> int:
        """Mel frames, and bands, per latent."""
        return 2 ** (len(self.autoencoder.config["block_out_channels"]) - 1)

    @property
    def samples_per_step(self) -> int:
        return HOP_LENGTH * self.downsampling

    def num_real_steps(self, num_samples: int) -> int:
        """See `AudioCodec.num_real_steps`: whole latents inside the sound, because log-mel of 0.0 follows it."""
        return num_samples // self.samples_per_step

    def latent_size(self, num_samples: int, rule: LengthRule = "training") -> tuple[int, int]:
        """See `AudioCodec.latent_size`; the release uses another rule for sampling (see `audio_lengths`)."""
        return num_mel_frames(num_samples, rule) // self.downsampling, NUM_MELS // self.downsampling

    def encode(self, waveform: Tensor, noise: Tensor | None = None) -> Tensor:
        """See `AudioCodec.encode`. As published, log-mel frames past the end are 0.0, which is loud.

        Args:
            waveform: float (B, samples) at 16 kHz.
            noise: see `encode_mel`.

        Raises:
            ValueError: if the waveform has another number of axes, or is shorter than 33 ms.
        """
        if waveform.ndim != 2 or waveform.shape[1] <= N_FFT // 2:
            raise ValueError(
                f"The waveform has the shape {tuple(waveform.shape)}, but must be (B, samples) with more than "
                f"{N_FFT // 2} samples: mix the channels to mono, and use longer sound."
            )
        mel = log_mel(normalize_waveform(waveform), num_mel_frames(waveform.shape[1]))
        return self.encode_mel(mel[:, None], noise)

    def decode(self, latents: Tensor, num_samples: int) -> Tensor:
        """See `AudioCodec.decode`; the vocoder returns 32 samples more than 160 per frame, which are cut."""
        waveform = self.vocoder(self.decode_mel(latents)[:, 0].to(self.vocoder.dtype)).float()
        return F.pad(waveform, (0, num_samples - waveform.shape[1]))  # a negative length cuts

    def encode_mel(self, mel: Tensor, noise: Tensor | None = None) -> Tensor:
        """Encode log-mel, float (B, 1, frames, 64), to the mean of the posterior, float32 (B, C, frames / 4, 16).

        Args:
            mel: log-mel spectrogram of a normalised waveform.
            noise: standard normal noise, shaped like the latents; given, the result is a sample of the posterior, as
                in the release's training.
        """
        posterior = self.autoencoder.encode(mel.to(self.autoencoder.dtype)).latent_dist
        drawn = posterior.mean if noise is None else posterior.mean + posterior.std * noise
        return drawn.float() * self.autoencoder.config["scaling_factor"]

    def decode_mel(self, latents: Tensor) -> Tensor:
        """Decode latents, float (B, C, T, M), to log-mel, float32 (B, 1, 4 T, 64)."""
        scaled = latents / self.autoencoder.config["scaling_factor"]
        return self.autoencoder.decode(scaled.to(self.autoencoder.dtype)).sample.float()
