"""What the rewards ask of a device: that it is there, and that it computes float32 convolutions in float32."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


def check_device(name: str) -> None:
    """Try a device out, before weights of gigabytes are read for it.

    Raises:
        ValueError: there is no such device here.
    """
    import torch  # late: the suite that uses this is imported to name rewards, too

    # A torch that was built without this kind of device fails an assertion.
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(f"device is {name!r}, which cannot be used here ({reason}). Try 'cpu'.") from error


def is_device_lost(error: Exception) -> bool:
    """Whether the GPU no longer answers this process: after CUDA's own errors, unlike want of memory, every call fails.

    Told by the text as well, since cuBLAS's have not the type that torch has for them.
    """
    return "CUDA error" in str(error) or type(error).__name__ == "AcceleratorError"


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Without TF32, which cuDNN's float32 convolutions use by default, at 10 bits of mantissa: scores would show it.

    Products of matrices are in float32 unless somebody asks for less, so they are left as they are.
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
    """A worker uses the cores that Ray gave it; more threads would also change the rounding of sums."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(num_threads)
