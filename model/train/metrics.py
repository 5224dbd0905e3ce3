"""Meters of a training run: loss per modality and noise level, gradient norms, speed, memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from model.data.latent_schema import MODALITIES
from model.train.freezing import branch_of

NUM_SIGMA_BINS = 5  # equal parts of the noise level, 0 = data, 1 = noise
Reduce = Callable[[Tensor], Tensor]  # sum over processes


def sigma_label(index: int) -> str:
    """Return the label of a bin, such as "sigma_0.2-0.4"."""
    return f"sigma_{index / NUM_SIGMA_BINS:.1f}-{(index + 1) / NUM_SIGMA_BINS:.1f}"


def sigma_bins(sigma: Tensor) -> Tensor:
    """Return the bin of each noise level (B,) in [0, 1]."""
    return (sigma * NUM_SIGMA_BINS).long().clamp(max=NUM_SIGMA_BINS - 1)


class LossMeter:
    """Mean error per modality, in total and by noise level, since the last `drain`."""

    def __init__(self) -> None:
        self.sums = torch.zeros(len(MODALITIES), NUM_SIGMA_BINS, 2, dtype=torch.float64)  # (sum, count)

    def add(self, errors: Mapping[str, Tensor], sigma: Tensor) -> None:
        """Add the errors (B,) of the modalities present at noise levels (B,)."""
        bins = sigma_bins(sigma).cpu()
        for name, error in errors.items():
            values = torch.stack([error.detach().double().cpu(), torch.ones(len(error), dtype=torch.float64)], dim=1)
            self.sums[MODALITIES.index(name)].index_add_(0, bins, values)

    def drain(self, reduce: Reduce) -> dict[str, float]:
        """Return `loss/<modality>` and `loss/<modality>/sigma_a-b` over all processes, and reset the meter."""
        sums = reduce(self.sums)
        self.sums = torch.zeros_like(self.sums)
        means = {}
        for name, rows in zip(MODALITIES, sums, strict=True):
            if rows[:, 1].sum():
                means[f"loss/{name}"] = (rows[:, 0].sum() / rows[:, 1].sum()).item()
            for index, (total, count) in enumerate(rows.tolist()):
                if count:
                    means[f"loss/{name}/{sigma_label(index)}"] = total / count
        return means


class SpeedMeter:
    """Tokens and time since the last `drain`, and the peak of memory."""

    def __init__(self) -> None:
        self.tokens = 0
        self.since = time.perf_counter()

    def drain(self, reduce: Reduce) -> dict[str, float]:
        """Return `tokens_per_second` of all processes and `memory_gib` of this one, and reset the meter."""
        now = time.perf_counter()
        tokens = reduce(torch.tensor([self.tokens], dtype=torch.float64)).item()
        speed = {"tokens_per_second": round(tokens / (now - self.since), 1), "memory_gib": round(peak_memory_gib(), 3)}
        self.tokens, self.since = 0, now
        return speed


def peak_memory_gib() -> float:
    """Return the peak memory so far in GiB, of the accelerator where there is one, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


@torch.no_grad()
def gradient_norms(model: nn.Module) -> dict[str, float]:
    """Return `grad_norm/video|audio|shared`: norms over the parameters of one modality alone, and over shared ones.

    The result is empty where gradients are not stored on the parameters (DeepSpeed).
    """
    gradients: dict[str, list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            gradients.setdefault(branch_of(name), []).append(parameter.grad)
    norms = {branch: nn.utils.get_total_norm(tensors) for branch, tensors in gradients.items()}
    return {
        f"grad_norm/{branch}": (norm.full_tensor() if isinstance(norm, DTensor) else norm).item()
        for branch, norm in norms.items()
    }
