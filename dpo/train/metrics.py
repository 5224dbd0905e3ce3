"""Metrics of preference training between two log lines: means over rows, and each modality's share of the gradient.

Means are computed over all pairs or candidates and, for the main metrics, by noise level.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from dpo.data.schema import MODALITIES
from model.train.metrics import NUM_SIGMA_BINS, Reduce, sigma_bins, sigma_label


class PreferenceMeter:
    """Means of a loss's metrics over the pairs or candidates of all processes, some of them also by noise level."""

    def __init__(self, by_sigma: Collection[str]) -> None:
        """Create the meter of metrics `<name>/<modality>`, with the names of those that are split by noise level."""
        self._by_sigma = by_sigma
        self._names: list[str] = []
        self._sums = torch.zeros(0, NUM_SIGMA_BINS, dtype=torch.float64)  # (metrics + count, bins)

    def add(self, metrics: Mapping[str, Tensor], sigma: Tensor) -> None:
        """Add the metrics, each (B,), and the noise levels (B,), in [0, 1], of a batch."""
        if not self._names:
            self._names = list(metrics)
            self._sums = torch.zeros(len(metrics) + 1, NUM_SIGMA_BINS, dtype=torch.float64)
        rows = [*(metrics[name].float() for name in self._names), torch.ones_like(sigma)]
        self._sums.index_add_(1, sigma_bins(sigma).cpu(), torch.stack(rows).double().cpu())

    def drain(self, reduce: Reduce) -> dict[str, float]:
        """Return means as `<metric>` and, for those split by noise level, `<metric>/sigma_a-b`, and reset the meter."""
        *sums, counts = reduce(self._sums)
        means = {}
        for name, row in zip(self._names, sums, strict=True):
            means[name] = (row.sum() / counts.sum()).item()
            if name.rsplit("/", 1)[0] in self._by_sigma:
                means |= {
                    f"{name}/{sigma_label(index)}": (row[index] / count).item()
                    for index, count in enumerate(counts.tolist())
                    if count
                }
        self._names = []
        return means


class GradientShares:
    """Share of each modality in the gradient: `grad_share/<modality>`, which sum to 1.

    The shares are exact and need no extra backward pass. They use the gradient at each modality's predicted velocity:
    the root of its sum of squares over the rows since the last log line, divided by the sum over modalities. Only a
    modality's own loss reaches its prediction, so its share depends on its weight, beta and errors;
    `grad_norm/<branch>` measures the gradient inside the network.
    """

    def __init__(self) -> None:
        self._squares = dict.fromkeys(MODALITIES, torch.zeros((), dtype=torch.float64))

    def watch(self, predictions: Mapping[str, Tensor]) -> None:
        """Register hooks that record the gradients of these predictions in the backward pass."""
        for name, prediction in predictions.items():
            if prediction.requires_grad:
                prediction.register_hook(lambda gradient, name=name: self._add(name, gradient))

    def drain(self, reduce: Reduce) -> dict[str, float]:
        """Return the shares over all processes (empty if there was no gradient), and reset them."""
        norms = reduce(torch.stack([self._squares[name].cpu() for name in MODALITIES])).sqrt()
        self._squares = dict.fromkeys(MODALITIES, torch.zeros((), dtype=torch.float64))
        if not norms.sum():
            return {}
        shares = (norms / norms.sum()).tolist()
        return {f"grad_share/{name}": share for name, share in zip(MODALITIES, shares, strict=True)}

    def _add(self, name: str, gradient: Tensor) -> None:
        self._squares[name] = self._squares[name].to(gradient.device) + gradient.detach().float().square().sum()
