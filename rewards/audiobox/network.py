"""The network of AudioBox-Aesthetics: a WavLM encoder and one head per axis, in any size and trainable."""

from __future__ import annotations

from dataclasses import asdict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import WavLMConfig, WavLMModel

from rewards.audiobox.config import AXES, AudioBoxConfig
from rewards.audiobox.encoder import layer_results


class AestheticsNetwork(nn.Module):
    """Predictions per window and axis, normalised; `to_scores` makes scores of them.

    The encoder may be of another dtype than float32; its first convolution and the heads are not (see `checkpoint`).
    On CUDA, scores are exact under `core.devices.exact_convolutions` alone.
    """

    def __init__(self, config: AudioBoxConfig | None = None) -> None:
        super().__init__()
        self.config = config or AudioBoxConfig()
        self.wavlm = WavLMModel(WavLMConfig(**asdict(self.config.wavlm)))
        self.wavlm.masked_spec_embed.requires_grad_(False)  # in the checkpoint, but nothing uses it
        self.proj_layer = nn.ModuleDict({axis: _head(self.config) for axis in AXES})
        self.layer_weights = nn.ParameterDict({axis: nn.Parameter(torch.ones(self.config.nth_layer)) for axis in AXES})

    def forward(self, waveform: Tensor, num_valid: Tensor) -> Tensor:
        """Normalised predictions, float32 (W, 4) in the order of `AXES`.

        Args:
            waveform: float32 (W, S) at 16 kHz; sound, then zeros.
            num_valid: int64 (W,), how many samples of each window are sound; at least one.
        """
        embeddings = self.embed(waveform, num_valid)
        if self.config.normalize_embed:
            embeddings = F.normalize(embeddings, dim=-1)
        heads = zip(self.proj_layer.values(), embeddings.unbind(1), strict=True)
        return torch.cat([head(embedding) for head, embedding in heads], dim=1)

    def embed(self, waveform: Tensor, num_valid: Tensor) -> Tensor:
        """Return the input of the heads before its length is normalised, float32 (W, 4, C)."""
        results, padding = layer_results(self.wavlm, self.config.wavlm, waveform, num_valid)
        valid = (~padding)[..., None].float()  # (W, L, 1)
        # The mean over frames comes before the sum over layers: both are linear, and this order is cheaper.
        means = torch.stack([(result.float() * valid).sum(1) for result in results], dim=1) / valid.sum(1)[:, None]
        weights = torch.stack([weight.softmax(0) for weight in self.layer_weights.values()])  # (4, N)
        return weights @ means  # (4, N) @ (W, N, C)

    def to_scores(self, predictions: Tensor) -> Tensor:
        """Predictions (..., 4) as scores, about 1 to 10; float64, so that nothing is lost when windows are averaged."""
        transform = [self.config.target_transform[axis] for axis in AXES]
        std = torch.tensor([entry["std"] for entry in transform], dtype=torch.float64, device=predictions.device)
        mean = torch.tensor([entry["mean"] for entry in transform], dtype=torch.float64, device=predictions.device)
        return predictions * std + mean


def _head(config: AudioBoxConfig) -> nn.Sequential:
    size = config.wavlm.hidden_size
    layers: list[nn.Module] = []
    for _ in range(config.proj_num_layer - 1):
        layers += [nn.Linear(size, size), *([nn.LayerNorm(size)] if config.proj_ln else []), nn.GELU()]
    return nn.Sequential(*layers, nn.Linear(size, config.output_dim))
