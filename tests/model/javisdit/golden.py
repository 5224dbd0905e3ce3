"""Golden networks of the release: their weights, and this project's network built from them."""

from __future__ import annotations

import torch

from model.javisdit.network.transformer import JointDiT
from model.javisdit.weights.checkpoints import from_published
from tests.golden_files import ROOT, Golden, golden_path

__all__ = ["ROOT", "RULES", "Golden", "golden_path", "published_model", "published_state"]

RULES = {  # the release's names -> this project's names
    "interleave_offset": "ta_rope",
    "vanilla": "vanilla",
    "interpolate": "interpolate",
    "interleave": "interleave",
}


def published_state(golden: Golden) -> dict[str, torch.Tensor]:
    """Return the weights of a golden file under the release's names; a compact file may refer to another's weights."""
    if "weights_of" in golden.metadata:
        golden = Golden(golden.metadata["weights_of"])
    return {name.removeprefix("weights."): golden[name] for name in golden.names if name.startswith("weights.")}


def published_model(golden: Golden) -> JointDiT:
    """Return the network of a golden file, built from its published config and weights."""
    return from_published(published_state(golden), golden.metadata["config"])
