"""Weights of video tokens in the loss by the attention that the sound pays to them (OmniNFT, arXiv 2605.12480).

See docs/upstream/nft.md, section 5.
"""

from __future__ import annotations

import torch
from torch import Tensor


def region_token_weights(attention: Tensor, num_frames: int, max_weight: float) -> Tensor:
    """Return the weights (B, video tokens), between 1 and `max_weight`, of the video tokens.

    With s the attention to a token, summed over the audio queries, z its z-score within its latent frame (ddof 1) and
    k = max_weight - 1, the weight is 1 + k sigmoid(k z). `nft_loss` takes it as `token_weight` and normalises it.

    Args:
        attention: (B, audio tokens, video tokens), audio queries to video keys, averaged over heads and blocks; video
            tokens are ordered by frame.
        num_frames: number of latent frames.
        max_weight: bound of the weights, >= 1 (published: from 1 to 1.5 over the first 400 steps).

    Raises:
        ValueError: if the tokens do not split into frames, or the bound is under 1.
    """
    if attention.ndim != 3 or num_frames < 1 or attention.shape[2] % num_frames:
        raise ValueError(
            f"Attention of shape {tuple(attention.shape)} does not split into {num_frames} frames: give (B, audio "
            "tokens, video tokens) of whole frames."
        )
    if not max_weight >= 1:
        raise ValueError(f"max_weight is {max_weight}, which would take weight from the regions: give at least 1.")
    summed = attention.detach().sum(1).unflatten(1, (num_frames, -1))  # (B, T, tokens of a frame)
    deviation = summed - summed.mean(2, keepdim=True)
    # 0 / 0 where a frame has one token or equal ones
    score = torch.nan_to_num(deviation / deviation.square().sum(2, keepdim=True).div(summed.shape[2] - 1).sqrt())
    excess = max_weight - 1
    return (1 + excess * torch.sigmoid(excess * score)).flatten(1)
