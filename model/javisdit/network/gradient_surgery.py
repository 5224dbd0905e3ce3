"""OmniNFT's gradient surgery: the video loss reaches the audio tokens of early blocks with a smaller gradient.

See docs/upstream/nft.md, section 5.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

BLOCKS = re.compile(r"(\d+)(?:-(\d+))?")


def scale_gradient(hidden: Tensor, scale: float) -> Tensor:
    """Return `hidden`, with gradients that are multiplied by `scale` on their way back."""
    return hidden.detach() + scale * (hidden - hidden.detach())


def block_scales(scales: Mapping[str, float], num_blocks: int) -> list[float]:
    """Return one scale per block, 1 where none is given.

    Args:
        scales: block, or first and last block, -> scale. OmniNFT's 48 blocks: {"0": 0.0, "1-10": 0.1, "40-47": 0.3}.
        num_blocks: number of blocks of the network.

    Raises:
        ValueError: for blocks that the network lacks or that are given twice, or a negative scale.
    """
    found: dict[int, float] = {}
    for key, scale in scales.items():
        match = BLOCKS.fullmatch(key)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if not first <= last < num_blocks or not scale >= 0:
            raise ValueError(
                f"Blocks {key!r} are given the gradient scale {scale}: give a block from 0 to {num_blocks - 1}, or the "
                "first and last of several, as in '1-10', and a scale >= 0."
            )
        if found.keys() & set(range(first, last + 1)):
            raise ValueError(f"Blocks {key!r} have a gradient scale already: give each block one scale.")
        found |= dict.fromkeys(range(first, last + 1), float(scale))
    return [found.get(number, 1.0) for number in range(num_blocks)]
