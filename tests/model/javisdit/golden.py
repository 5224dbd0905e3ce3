"""Golden networks of the release: their weights, and our network made from them."""

from __future__ import annotations

import torch

from model.javisdit.network.transformer import JointDiT
from model.javisdit.weights.checkpoints import from_published
from tests.golden_files import ROOT, Golden, golden_path

__all__ = ["ROOT", "RULES", "Golden", "golden_path", "published_model", "published_state"]

RULES = {  # the release's names -> ours
    "interleave_offset": "ta_rope",
    "vanilla": "vanilla",
    "interpolate": "interpolate",
    "interleave": "interleave",
}


def published_state(golden: Golden) -> dict[str, torch.Tensor]:
    """The weights of a golden file under the release's names; a compact file may name another that has the same."""
    if "weights_of" in golden.metadata:
        golden = Golden(golden.metadata["weights_of"])
    return {name.removeprefix("weights."): golden[name] for name in golden.names if name.startswith("weights.")}


def published_model(golden: Golden) -> JointDiT:
    """The network of a golden file, from its published config and weights."""
    return from_published(published_state(golden), golden.metadata["config"])
