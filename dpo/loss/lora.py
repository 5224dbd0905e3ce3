"""The adapter that learns, and the reference that it leaves in place: the same network with the adapter off.

Where a fine-tuned adapter is trained on, the reference is that adapter as it was, frozen beside the one that learns.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from model.javisdit.network.transformer import JointDiT
from model.lora import check_adapter

REFERENCE_ADAPTER = "reference"


def continue_adapter(network: JointDiT, folder: str | Path, dropout: float) -> PeftModel:
    """The adapter in `folder` on its base, to be trained on, and a frozen copy of it for the reference.

    Rank, scale and layers are the folder's, as in the release's third stage.

    Raises:
        ValueError: the folder's adapter is no plain LoRA, or its tensors are not those of the network's layers.
    """
    check_adapter(network, folder)  # peft would only warn
    config = LoraConfig.from_pretrained(str(folder))
    config.lora_dropout, config.inference_mode = dropout, False
    base = config.base_model_name_or_path
    vars(network)["name_or_path"] = base  # peft copies it back into the config
    model = PeftModel.from_pretrained(network, str(folder), config=config, is_trainable=True)
    model.load_adapter(str(folder), REFERENCE_ADAPTER, is_trainable=False)
    model.set_adapter("default")
    return model


def share_dropout(model: PeftModel) -> PeftModel:
    """Gives winner and loser the same dropout mask in every adapter, and returns the model.

    With independent masks two identical clips would have different errors, and their pair a preference. Even a shared
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
    """While open, `model` is the reference: its adapter off or the frozen one on, no dropout, no gradient."""
    was_training = model.training
    model.eval()
    switched = _frozen_adapter(model) if REFERENCE_ADAPTER in model.peft_config else model.disable_adapter()
    try:
        with torch.no_grad(), switched:
            yield
    finally:
        model.train(was_training)


@contextmanager
def _frozen_adapter(model: PeftModel) -> Iterator[None]:
    trained = model.active_adapter
    model.set_adapter(REFERENCE_ADAPTER)
    try:
        yield
    finally:
        model.set_adapter(trained)  # which freezes the other one again


class PairedDropout(nn.Dropout):
    """Dropout on (2B, ...) with one mask for row i and row B + i."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return input
        keep = torch.rand_like(input[: len(input) // 2]) >= self.p
        return input * torch.cat([keep, keep]) / (1 - self.p)
