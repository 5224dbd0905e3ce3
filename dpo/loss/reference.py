"""The reference model: the policy's network without its adapter, or a frozen copy of the network."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from peft import PeftModel
from torch import Tensor, nn

from dpo.data.schema import MODALITIES
from dpo.loss.lora import reference_model
from model.javisdit.network.transformer import JointDiT
from model.train.joint_trainer import JointTrainer, TrainedNetwork, reshard

REFERENCE_NAME = "reference.safetensors"  # in checkpoints of runs with sync_ref_model


def velocities(model: nn.Module, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """Run the network and return its predictions: modality -> velocity (2B, ...)."""
    output = model(**arguments)
    return {name: getattr(output, name) for name in MODALITIES}


def adapter_reference(model: PeftModel, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the reference's predictions (see `velocities`): without the adapter, or with the starting adapter."""
    with reference_model(model):
        return velocities(model, arguments)


class FrozenCopy:
    """A frozen copy of the network as the reference of full fine-tuning; sharded if the policy is."""

    def __init__(self, network: JointDiT, compile_backend: str | None = None) -> None:
        """Copy the network in its present state; a `compile_backend` compiles the blocks of the copy."""
        own = copy.deepcopy(network).eval().requires_grad_(False)
        if compile_backend is not None:
            own.compile_blocks(backend=compile_backend)
        self.model: nn.Module = TrainedNetwork(own)

    def place(self, trainer: JointTrainer) -> None:
        """Move the copy to the policy's devices.

        Raises:
            ValueError: if the policy is sharded in a way that the copy does not support.
        """
        plugin = trainer.accelerator.state.fsdp_plugin if trainer.is_fsdp_enabled else None
        zero = trainer.accelerator.state.deepspeed_plugin if trainer.is_deepspeed_enabled else None
        if (plugin is not None and plugin.fsdp_version != 2) or (zero is not None and zero.zero_stage == 3):
            raise ValueError(
                "Full fine-tuning keeps a frozen copy of the network, which FSDP 1 and ZeRO stage 3 would not shard: "
                "use fsdp_version 2 or ZeRO stage 2, or set precompute_ref_errors true."
            )
        if plugin is None:
            self.model.to(trainer.args.device)
        else:
            self.model = fsdp2_prepare_model(trainer.accelerator, self.model)

    @torch.no_grad()
    def predict(self, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the copy's predictions (see `velocities`)."""
        predicted = velocities(self.model, arguments)
        reshard(self.model)
        return predicted

    @torch.no_grad()
    def match_precision(self, policy: nn.Module) -> None:
        """Cast the copy to the policy's dtypes; DeepSpeed casts the policy to bfloat16 when training begins."""
        for own, other in self._beside(policy):
            if own.dtype != other.dtype:
                own.data = own.data.to(other.dtype)

    @torch.no_grad()
    def move_towards(self, policy: nn.Module, alpha: float) -> None:
        """Set reference = alpha * policy + (1 - alpha) * reference (TR-DPO, arXiv 2404.09656)."""
        for own, other in self._beside(policy):
            own.mul_(1 - alpha).add_(other.detach(), alpha=alpha)

    def weights(self) -> dict[str, Tensor]:
        """Return the copy's weights by name."""
        return dict(self.model.named_parameters())

    def _beside(self, policy: nn.Module) -> Iterator[tuple[nn.Parameter, nn.Parameter]]:
        return zip(self.model.parameters(), policy.parameters(), strict=True)
