"""What preference training tells between two log lines: means over pairs, by noise level, and whose gradient it was."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dpo.data.schema import MODALITIES
from model.train.metrics import NUM_SIGMA_BINS, Reduce, sigma_bins, sigma_label

BY_SIGMA = (
    *("rewards/margins", "rewards/accuracies"),
    *("error/chosen", "error/rejected", "ref_error/chosen", "ref_error/rejected"),
)


class PreferenceMeter:
    """Mean of every metric of `av_dpo_loss` over the pairs of all processes, and of some by noise level."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._sums = torch.zeros(0, NUM_SIGMA_BINS, dtype=torch.float64)  # (metrics and the count of pairs, bins)

    def add(self, metrics: Mapping[str, Tensor], sigma: Tensor) -> None:
        """Takes the metrics (B,) and the noise levels (B,) of a batch."""
        if not self._names:
            self._names = list(metrics)
            self._sums = torch.zeros(len(metrics) + 1, NUM_SIGMA_BINS, dtype=torch.float64)
        rows = [*(metrics[name].float() for name in self._names), torch.ones_like(sigma)]
        self._sums.index_add_(1, sigma_bins(sigma).cpu(), torch.stack(rows).double().cpu())

    def drain(self, reduce: Reduce) -> dict[str, float]:
        """`<metric>` and, per modality, `<metric>/sigma_a-b`; starts anew."""
        *sums, counts = reduce(self._sums)
        means = {}
        for name, row in zip(self._names, sums, strict=True):
            means[name] = (row.sum() / counts.sum()).item()
            if name.rsplit("/", 1)[0] in BY_SIGMA:
                means |= {
                    f"{name}/{sigma_label(index)}": (row[index] / count).item()
                    for index, count in enumerate(counts.tolist())
                    if count
                }
        self._names = []
        return means


class GradientShares:
    """Whose gradient trains the network: `grad_share/<modality>`, which sum to 1.

    Measured exactly, in the backward pass that happens anyway, by the gradient that reaches each modality's predicted
    velocity: the root of its squared sum over the pairs since the last look, as a share of the modalities' sum. A
    modality's own loss alone reaches its prediction, so the share follows its weight, beta and errors; what the network
    makes of it is told by `grad_norm/<branch>`.
    """

    def __init__(self) -> None:
        self._squares = dict.fromkeys(MODALITIES, torch.zeros((), dtype=torch.float64))

    def watch(self, predictions: Mapping[str, Tensor]) -> None:
        """Looks at the gradients of these predictions when they come."""
        for name, prediction in predictions.items():
            if prediction.requires_grad:
                prediction.register_hook(lambda gradient, name=name: self._add(name, gradient))

    def drain(self, reduce: Reduce) -> dict[str, float]:
        """The shares over all processes; empty where no gradient came. Starts anew."""
        norms = reduce(torch.stack([self._squares[name].cpu() for name in MODALITIES])).sqrt()
        self._squares = dict.fromkeys(MODALITIES, torch.zeros((), dtype=torch.float64))
        if not norms.sum():
            return {}
        shares = (norms / norms.sum()).tolist()
        return {f"grad_share/{name}": share for name, share in zip(MODALITIES, shares, strict=True)}

    def _add(self, name: str, gradient: Tensor) -> None:
        self._squares[name] = self._squares[name].to(gradient.device) + gradient.detach().float().square().sum()
