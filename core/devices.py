"""Checks and settings of torch devices: presence, lost GPUs, float32 convolutions, number of threads."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


def check_device(name: str) -> None:
    """Run one operation on a device, before gigabytes of weights are read for it.

    Raises:
        ValueError: this machine has no such device.
    """
    import torch  # late: the suite that uses this is also imported only to name rewards

    # A torch that was built without this kind of device fails an assertion.
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(f"device is {name!r}, which cannot be used here ({reason}). Try 'cpu'.") from error


def is_device_lost(error: Exception) -> bool:
    """Return whether the GPU is lost to this process: after a CUDA error, unlike out of memory, every call fails.

    The text is examined as well, since errors of cuBLAS do not have torch's type for CUDA errors.
    """
    return "CUDA error" in str(error) or type(error).__name__ == "AcceleratorError"


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Turn off TF32 in convolutions, which cuDNN uses by default; its 10 bits of mantissa would change scores.

    Matrix products are in float32 by default and are left unchanged.
    """
    import torch

    # Not by `cudnn.allow_tf32` or `cudnn.flags`: they refuse to work where the newer settings have been used.
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]  # set up when torch is imported
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = before


def limit_threads(num_threads: int) -> None:
    """Limit torch to the cores that Ray gave the worker; more threads would also change the rounding of sums."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(num_threads)
