"""Plan of a preference training run, for `--dry_run`: batches, parameters, memory, time and disk space."""

from __future__ import annotations

import time
from typing import Any

import torch

from dpo.data.curriculum import training_sampler
from dpo.data.dataset import PairDataset
from dpo.data.group_dataset import GroupDataset
from dpo.loss.reference import velocities
from dpo.train.advantages import candidate_advantages, describe, evaluation_advantages
from dpo.train.config import TrainConfig
from dpo.train.nft_trainer import group_sampler
from dpo.train.start import TrainingData, open_data, planned_network
from model.data.batches import BucketBatchSampler, Steps
from model.javisdit.network.config import SIZES, JointDiTConfig
from model.javisdit.network.transformer import JointDiT
from model.lora import attach_adapter, lora_config
from model.train.plan import batch_lines, disk_line, estimate_memory, label_name

# Cost of a step in forward passes: one of the reference, one of the policy, and a backward pass that counts as two.
POLICY_PASSES, REFERENCE_PASSES = 3, 1
H100_FLOPS, ASSUMED_SHARE = 989e12, 0.4  # dense bfloat16 peak of the data sheet; share that a transformer reaches
TIMED_FLOPS = 2e11  # largest pass of one clip that is timed on this CPU: a few seconds


def plan(config: TrainConfig) -> str:
    """Return the plan as text: data, batches and tokens, trained parameters, memory, time and disk, a line each.

    Raises:
        ValueError: if there is no data, or it does not fit the model.
    """
    (dataset, eval_dataset), network = open_data(config), planned_network(config)
    for data in (dataset, eval_dataset):
        if data is not None:
            data.check_network(network)
            data.check_finite()
    sampler, about = _batches(dataset, eval_dataset, config, network.config)
    steps = Steps.of(len(sampler), config.num_workers or config.world_size, config)
    labels = [label for label in dict.fromkeys(sampler.labels(0)) if label is not None]
    batches = {label: (dataset.num_tokens(label, network.config), sampler.rows_in_batch(label)) for label in labels}
    largest, (tokens, rows) = max(batches.items(), key=lambda item: item[1][0] * item[1][1])
    clips = dataset.clips_per_row
    time_line = _time_line(config, network, largest, tokens // clips, clips * rows, steps)
    is_lora = config.trainable == "lora"
    model = attach_adapter(network, lora_config(config), config.seed) if is_lora else network.requires_grad_(True)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in model.parameters())
    copies = int(not is_lora and not config.precompute_ref_errors)
    memory = estimate_memory(model, network.config, config, tokens * rows, reference_copies=copies)
    items = f"{dataset.form.item}s"
    return "\n".join(
        [
            f"{len(dataset)} {items} in {len(batches)} shape(s), {steps.per_epoch} steps an epoch, {steps.total} steps",
            *about,
            *batch_lines({label_name(label): batch for label, batch in batches.items()}, items),
            f"trains {trained:,} of {total:,} parameters ({config.trainable}); reference: {_reference(config)}",
            memory.line(),
            time_line,
            disk_line(model, trained, config),
            f"dry run: nothing written; output {config.output_dir}",
        ]
    )


def _batches(
    dataset: TrainingData, eval_dataset: TrainingData | None, config: TrainConfig, network: JointDiTConfig
) -> tuple[BucketBatchSampler, list[str]]:
    """Return the sampler of the training data, and what there is to say about groups and their scores."""
    processes = config.num_workers or config.world_size
    if isinstance(dataset, PairDataset):
        return training_sampler(dataset, config, network, processes), []
    advantages = candidate_advantages(dataset, config)
    if isinstance(eval_dataset, GroupDataset):
        evaluation_advantages(eval_dataset, config, advantages)  # raises if it has other rewards
    sampler = group_sampler(dataset, config, advantages, network, processes)
    return sampler, describe(dataset, advantages, config.adv_clip)


def _reference(config: TrainConfig) -> str:
    if config.precompute_ref_errors:
        return "its errors, computed before the first step"
    if config.trainable == "full":
        return "a frozen copy"
    return "the adapter as it was" if config.adapter == "continue" else "the network without its adapter"


def _time_line(config: TrainConfig, network: JointDiT, label: Any, tokens: int, clips: int, steps: Steps) -> str:
    """Estimate the time from the operations of the largest batch, for an H100 and, if small enough, for this CPU.

    For this CPU, the pass of one clip is timed, which needs the weights.
    """
    checkpointing = bool(config.activation_checkpointing or config.gradient_checkpointing)
    passes = POLICY_PASSES + REFERENCE_PASSES + checkpointing
    pass_flops = clip_flops(network, tokens)
    count = passes * config.gradient_accumulation_steps * clips
    work = count * pass_flops
    hours = steps.total * work / (H100_FLOPS * ASSUMED_SHARE) / 3600
    line = (
        f"time, about: {work / 1e12:.3g} TFLOP a step and device, so {hours:.3g} h for {steps.total} steps at "
        f"{ASSUMED_SHARE:.0%} of an H100's bfloat16 rate"
    )
    if config.model in SIZES or pass_flops > TIMED_FLOPS:
        return line
    seconds = count * _forward_seconds(network, network.config, label)
    return f"{line}; on this CPU {seconds:.2g} s a step, {steps.total * seconds / 60:.2g} min (one clip's pass timed)"


def clip_flops(network: JointDiT, tokens: int) -> float:
    """Return the floating-point operations of a forward pass of one clip.

    Each token passes through all parameters except the feed-forward of other modalities, and attends to all tokens of
    its clip.
    """
    config = network.config
    parameters = sum(parameter.numel() for parameter in network.parameters())
    experts = (len(config.experts) - 1) * config.num_layers * 2 * config.dim * config.ffn_dim
    return tokens * (2 * (parameters - experts) + 4 * config.num_layers * config.dim * tokens)


@torch.no_grad()
def _forward_seconds(network: JointDiT, config: JointDiTConfig, label: tuple[int, ...]) -> float:
    """Return the time of a forward pass of one clip in seconds, the shortest of three runs."""
    arguments: dict[str, Any] = {
        "video": torch.zeros(1, *label[:4], dtype=network.dtype),
        "audio": torch.zeros(1, *label[4:7], dtype=network.dtype),
        "timestep": torch.full((1,), 500.0),
        "text": torch.zeros(1, config.text_len, config.text_dim, dtype=network.dtype),
        "text_mask": torch.ones(1, config.text_len, dtype=torch.bool),
        "num_frames": label[-3],
    }
    times = []
    for _ in range(3):
        started = time.perf_counter()
        velocities(network, arguments)
        times.append(time.perf_counter() - started)
    return min(times)
