"""The trained adapter, and the reference model, which is the same network with the adapter off.

If training continues a fine-tuned adapter, the reference is a frozen copy of that adapter as it was at the start.
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
    """Load the adapter in `folder` for further training, and a frozen copy of it as the reference.

    Rank, scale and layers are those of the folder, as in the release's third stage.

    Args:
        network: base network of the adapter.
        folder: adapter folder.
        dropout: dropout of the adapter in training.

    Raises:
        ValueError: if the folder's adapter is no plain LoRA, or its tensors do not match the network's layers.
    """
    check_adapter(network, folder)  # peft itself would only warn
    config = LoraConfig.from_pretrained(str(folder))
    config.lora_dropout, config.inference_mode = dropout, False
    base = config.base_model_name_or_path
    vars(network)["name_or_path"] = base  # peft copies it back into the config
    model = PeftModel.from_pretrained(network, str(folder), config=config, is_trainable=True)
    model.load_adapter(str(folder), REFERENCE_ADAPTER, is_trainable=False)
    model.set_adapter("default")
    return model


def share_dropout(model: PeftModel) -> PeftModel:
    """Replace every adapter's dropout by one that gives winner and loser the same mask, and return the model.

    With independent masks, two identical clips would have different errors and their pair a preference. A shared mask
    still makes the policy differ from the reference, which has no dropout: only with dropout 0 does the loss start at
    exactly log 2.
    """
    for module in model.modules():
        if isinstance(module, LoraLayer):
            for name, dropout in module.lora_dropout.items():
                if isinstance(dropout, nn.Dropout):
                    module.lora_dropout[name] = PairedDropout(dropout.p)
    return model


@contextmanager
def reference_model(model: PeftModel) -> Iterator[None]:
    """Turn `model` into the reference inside the block: adapter off (or the frozen one on), no dropout, no gradient."""
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
        model.set_adapter(trained)  # also freezes the reference adapter again


class PairedDropout(nn.Dropout):
    """Dropout on (2B, ...) with one mask for row i and row B + i."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return input
        keep = torch.rand_like(input[: len(input) // 2]) >= self.p
        return input * torch.cat([keep, keep]) / (1 - self.p)
