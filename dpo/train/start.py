"""From the settings of preference training to the model that trains and its pairs."""

from __future__ import annotations

from typing import cast

from peft import LoraConfig, PeftModel

from dpo.data.dataset import PairDataset
from dpo.loss.lora import continue_adapter
from dpo.train.config import TrainConfig
from dpo.train.trainer import AVDPOTrainer
from model.javisdit.network.config import SIZES
from model.javisdit.network.transformer import JointDiT
from model.javisdit.weights.folders import adapter_base, load_transformer
from model.lora import lora_config


def make_trainer(config: TrainConfig) -> AVDPOTrainer:
    """The trainer of the settings, with its data and its watchers.

    Raises:
        ValueError: data that does not fit the model, or a model that is none.
    """
    dataset, eval_dataset = open_pairs(config)
    model = starting_model(config)
    is_new = config.trainable == "lora" and not isinstance(model, PeftModel)
    peft_config = lora_config(config) if is_new else None
    trainer = AVDPOTrainer(model, config, dataset, eval_dataset=eval_dataset, peft_config=peft_config)
    if config.sample_prompts:
        from dpo.train.reward_watch import RewardWatcher
        from model.train.samples import SampleWriter

        modalities = trainer.network.config.modalities
        trainer.add_callback(SampleWriter(trainer, config.model, config.sample_prompts, modalities, config.seed))
        if config.eval_rewards or config.held_out_rewards:
            trainer.add_callback(RewardWatcher(trainer, config))
    return trainer


def open_pairs(config: TrainConfig) -> tuple[PairDataset, PairDataset | None]:
    """The pairs to train on, and those to measure on.

    Raises:
        ValueError: no pairs, or pairs that the codecs and the text encoder of another model made.
    """
    dataset = PairDataset.load(config.dataset)
    eval_dataset = PairDataset.load(config.eval_dataset) if config.eval_dataset else None
    if config.model not in SIZES:  # a size's name, for a dry run, has no codecs
        for pairs in filter(None, (dataset, eval_dataset)):
            pairs.check_model(config.model)
    return dataset, eval_dataset


def starting_model(config: TrainConfig) -> JointDiT | PeftModel:
    """The network, with the adapter that is trained on where it is to be continued, on the CPU.

    Raises:
        ValueError: no weights at the given place, or no adapter to continue.
    """
    import torch

    dtype = getattr(torch, config.dtype)
    if config.adapter == "new":
        return load_transformer(config.model, dtype)
    base = adapter_base(config.model)
    if base is None:
        raise ValueError(
            f"adapter is 'continue', and {config.model} is no adapter folder: give what stage 2 wrote with trainable: "
            "lora, or set adapter to 'new'."
        )
    model = continue_adapter(load_transformer(base, dtype), config.model, config.lora_dropout)
    _check_own_settings(config, cast(LoraConfig, model.peft_config["default"]))
    return model


def _check_own_settings(config: TrainConfig, adapter: LoraConfig) -> None:
    """A continued adapter keeps its rank, scale and layers: settings that ask for others would be lost."""
    layers = adapter.target_modules or ()
    own = {
        "lora_r": adapter.r,
        "lora_alpha": adapter.lora_alpha,
        "lora_target_modules": layers if isinstance(layers, str) else sorted(layers),
    }
    for name, value in config.changed_adapter_settings().items():
        if name in own and (sorted(value) if isinstance(value, list) else value) != own[name]:
            raise ValueError(
                f"{name} is {value!r}, but adapter 'continue' trains on the adapter in {config.model}, which has "
                f"{own[name]!r}: leave {name} out, or set adapter to 'new'."
            )


def planned_network(config: TrainConfig) -> JointDiT:
    """For a dry run: a size's name gives a network without memory for its weights; adapters count as merged."""
    if config.model in SIZES:
        return JointDiT.on_meta(SIZES[config.model])
    if config.adapter == "continue":
        starting_model(config)  # finds what is wrong with it
    import torch

    return load_transformer(config.model, getattr(torch, config.dtype))
