"""The adapter that learns, and the reference that it leaves in place: the same network with the adapter off."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn


def share_dropout(model: PeftModel) -> PeftModel:
    """Gives winner and loser the same dropout mask in every adapter, and returns the model.

    With independent masks two identical clips would have different errors, and their pair a preference.  Even a shared
    mask makes the policy differ from the reference, which has none: use dropout 0 for an exact start at log 2.
    """
    for module in model.modules():
        if isinstance(module, LoraLayer):
            for name, dropout in module.lora_dropout.items():
                if isinstance(dropout, nn.Dropout):
                    module.lora_dropout[name] = PairedDropout(dropout.p)
    return model


@contextmanager
def reference_model(model: PeftModel) -> Iterator[None]:
    """While open, `model` is the reference: adapter off, no dropout, no gradient."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), model.disable_adapter():
            yield
    finally:
        model.train(was_training)


class PairedDropout(nn.Dropout):
    """Dropout on (2B, ...) with one mask for row i and row B + i."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return input
        keep = torch.rand_like(input[: len(input) // 2]) >= self.p
        return input * torch.cat([keep, keep]) / (1 - self.p)
