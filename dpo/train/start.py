"""Construction of the trainer, the model and the data from the settings of preference training."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from peft import LoraConfig, PeftModel

from dpo.data.dataset import PairDataset
from dpo.data.group_dataset import GroupDataset
from dpo.data.regions import require_regions
from dpo.data.replay import with_replay
from dpo.data.verdict import refuse_marks
from dpo.loss.lora import continue_adapter
from dpo.train.config import TrainConfig
from dpo.train.nft_trainer import NFTTrainer
from dpo.train.preference_trainer import PreferenceTrainer
from dpo.train.trainer import AVDPOTrainer
from model.javisdit.network.config import SIZES
from model.javisdit.network.transformer import JointDiT
from model.javisdit.weights.folders import adapter_base, load_transformer
from model.lora import lora_config

TrainingData = PairDataset | GroupDataset


def make_trainer(config: TrainConfig) -> PreferenceTrainer:
    """Build the trainer of the objective with its data and its callbacks.

    Raises:
        ValueError: if there is no model, or the data does not fit it.
    """
    dataset, eval_dataset = open_data(config)
    model = starting_model(config)
    is_new = config.trainable == "lora" and not isinstance(model, PeftModel)
    peft_config = lora_config(config) if is_new else None
    trainer_class: type[Any] = NFTTrainer if config.objective == "nft" else AVDPOTrainer
    trainer = trainer_class(model, config, dataset, eval_dataset=eval_dataset, peft_config=peft_config)
    if config.sample_prompts:
        from dpo.train.reward_watch import RewardWatcher
        from model.train.samples import SampleWriter

        modalities = trainer.network.config.modalities
        trainer.add_callback(SampleWriter(trainer, config.model, config.sample_prompts, modalities, config.seed))
        if config.eval_rewards or config.held_out_rewards:
            trainer.add_callback(RewardWatcher(trainer, config))
    return trainer


def open_data(config: TrainConfig) -> tuple[TrainingData, TrainingData | None]:
    """Open the training data of the objective and the evaluation data (None without eval_dataset).

    Raises:
        ValueError: if there is no such data, other codecs or another text encoder than the model's made it, or a
            preference would learn the mark of the rule that made the losers.
    """
    if config.objective == "dpo" and not config.train_on_mark:
        weights = config.modality_weights
        refuse_marks(Path(config.dataset), {name: weights[name] * beta for name, beta in config.beta.items()})
    dataset_class: type[TrainingData] = GroupDataset if config.objective == "nft" else PairDataset
    dataset = dataset_class.load(config.dataset)
    eval_dataset = dataset_class.load(config.eval_dataset) if config.eval_dataset else None
    if config.region_weight:
        for data in (dataset, eval_dataset):
            if data is not None:
                require_regions(data.rows.column_names, data.source)
    if config.model not in SIZES:  # the name of a size, allowed in a dry run, has no codecs
        for data in (dataset, eval_dataset):
            if data is not None:
                data.check_model(config.model)
    if isinstance(dataset, GroupDataset) and config.replay:
        earlier = [GroupDataset.load(folder) for folder in config.replay]
        for one in earlier:
            one.check_model(config.model)
        dataset = with_replay(dataset, earlier, config.replay_share, config.seed)
    return dataset, eval_dataset


def starting_model(config: TrainConfig) -> JointDiT | PeftModel:
    """Load the network on the CPU; with adapter "continue", with the adapter whose training continues.

    Raises:
        ValueError: if there are no weights at the given path, or no adapter to continue.
    """
    import torch

    dtype = getattr(torch, config.dtype)
    if config.adapter == "new":
        return load_transformer(config.model, dtype)
    base = adapter_base(config.model)
    if base is None:
        raise ValueError(
            f"adapter is 'continue', but {config.model} is no adapter folder: give a folder that stage 2 wrote with "
            "trainable: lora, or set adapter to 'new'."
        )
    model = continue_adapter(load_transformer(base, dtype), config.model, config.lora_dropout)
    _check_own_settings(config, cast(LoraConfig, model.peft_config["default"]))
    return model


def _check_own_settings(config: TrainConfig, adapter: LoraConfig) -> None:
    """Raise ValueError for settings of rank, scale or layers that differ from those of a continued adapter."""
    layers = adapter.target_modules or ()
    own = {
        "lora_r": adapter.r,
        "lora_alpha": adapter.lora_alpha,
        "lora_target_modules": layers if isinstance(layers, str) else sorted(layers),
    }
    for name, value in config.changed_adapter_settings().items():
        if name in own and (sorted(value) if isinstance(value, list) else value) != own[name]:
            raise ValueError(
                f"{name} is {value!r}, but adapter 'continue' continues the adapter in {config.model}, which has "
                f"{own[name]!r}: leave {name} out, or set adapter to 'new'."
            )


def planned_network(config: TrainConfig) -> JointDiT:
    """Return the network for a dry run: on the meta device for the name of a size; adapters are merged."""
    if config.model in SIZES:
        return JointDiT.on_meta(SIZES[config.model])
    if config.adapter == "continue":
        starting_model(config)  # raises if it cannot be loaded
    import torch

    return load_transformer(config.model, getattr(torch, config.dtype))
