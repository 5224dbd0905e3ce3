"""A network so small that a forward pass takes milliseconds, with heads that do not predict zero."""

from __future__ import annotations

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from model.javisdit.network.config import JointDiTConfig
from model.javisdit.network.transformer import JointDiT
from model.lora import lora_config
from model.train.config import TrainConfig

SMALL = JointDiTConfig(dim=48, ffn_dim=64, num_heads=2, num_layers=2, freq_dim=16, text_dim=24, text_len=6)


def small_model(config: JointDiTConfig = SMALL, seed: int = 0) -> JointDiT:
    torch.manual_seed(seed)
    model = JointDiT(config).eval()
    for spec in config.specs:  # a fresh head is zero
        torch.nn.init.normal_(model.get_submodule(f"{spec.prefix}head").head.weight, std=0.1)
    return model


def published_adapter() -> LoraConfig:
    """Return the default configuration of a LoRA run, which is the release's adapter."""
    return lora_config(TrainConfig(model="tiny", dataset="clips", output_dir="run", trainable="lora", use_cpu=True))


def small_adapter(model: JointDiT) -> PeftModel:
    """Return the model with an adapter of the published kind that changes its output, unlike a new adapter."""
    adapted = get_peft_model(model, published_adapter())
    generator = torch.Generator().manual_seed(1)
    for module in adapted.modules():
        for layer in getattr(module, "lora_B", {}).values():
            layer.weight.data = torch.randn(layer.weight.shape, generator=generator) * 0.1
    return adapted


def inputs(batch: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        "video": torch.randn(batch, 16, 3, 4, 6, generator=generator),
        "audio": torch.randn(batch, 8, 8, 16, generator=generator),
        "timestep": torch.tensor([10.0, 900.0][:batch]),
        "text": torch.randn(batch, 6, 24, generator=generator),
        "text_mask": torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]][:batch]).bool(),
    }


def same_weights(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    """Return true if two modules have bitwise equal tensors with the same names and dtypes."""
    left, right = first.state_dict(), second.state_dict()
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and torch.equal(left[name], right[name]) for name in left
    )
