"""The network to train and its data, made from the settings of a training run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from model.data.latent_dataset import LatentDataset, TrainingClips
from model.data.latent_schema import MODALITIES
from model.javisdit.network.config import SIZES, JointDiTConfig
from model.javisdit.network.transformer import JointDiT
from model.javisdit.weights.checkpoints import load_wan, published_config
from model.javisdit.weights.folders import load_transformer
from model.lora import attach_adapter, lora_config
from model.train.config import TrainConfig
from model.train.freezing import freeze_for_audio_stage

if TYPE_CHECKING:
    from peft import PeftModel


def starting_network(config: TrainConfig) -> JointDiT:
    """Load the network that the run starts from, on the CPU.

    Raises:
        ValueError: the given path has no weights.
    """
    dtype = getattr(torch, config.dtype)
    if config.video_backbone is not None:
        return load_wan(config.video_backbone, joint_config(config), dtype, seed=config.seed)
    return load_transformer(config.model, dtype)


def planned_network(config: TrainConfig) -> JointDiT:
    """Return the starting network for a dry run; for the name of a size, one on the meta device."""
    if config.model in SIZES and config.video_backbone is None:
        return JointDiT.on_meta(with_switches(SIZES[config.model], config))
    return starting_network(config)


def joint_config(config: TrainConfig) -> JointDiTConfig:
    """Return the configuration of the joint network on a video backbone."""
    assert config.video_backbone is not None
    return with_switches(published_config(config.video_backbone), config)


def with_switches(network: JointDiTConfig, config: TrainConfig) -> JointDiTConfig:
    switches: dict[str, Any] = {"ffn": config.ffn, "audio_positions": config.audio_positions}
    chosen = {name: value for name, value in switches.items() if value is not None}
    return replace(network, modalities=MODALITIES, **chosen)


def choose_trainable(network: JointDiT, config: TrainConfig) -> JointDiT | PeftModel:
    """Freeze the parameters that do not train; in a LoRA run, attach the adapter."""
    if config.trainable == "lora":
        return attach_adapter(network, lora_config(config), config.seed)
    if config.trainable == "audio":
        freeze_for_audio_stage(network)
    else:
        network.requires_grad_(True)
    return network.train()


def trained_modalities(network: JointDiT, config: TrainConfig) -> tuple[str, ...]:
    """Return the modalities of the training data: audio alone in stage 1, else all of the network's."""
    return ("audio",) if config.trainable == "audio" else network.config.modalities


def open_clips(config: TrainConfig, modalities: tuple[str, ...]) -> TrainingClips:
    """Open the training data."""
    if config.dataset is not None:
        return LatentDataset.load(config.dataset, modalities)
    from model.data.on_the_fly import OnTheFlyClips

    assert config.clips is not None
    assert config.buckets is not None
    return OnTheFlyClips.open(config, modalities)


def open_eval_clips(config: TrainConfig, modalities: tuple[str, ...]) -> LatentDataset | None:
    return None if config.eval_dataset is None else LatentDataset.load(config.eval_dataset, modalities)
