"""What a run of preference training would do and need, told before it starts."""

import math
import time
from typing import Any

import torch

from dpo.config import TrainConfig
from dpo.data import PairDataset
from dpo.reference import velocities
from dpo.start import planned_network
from model.batches import BucketBatchSampler, Steps
from model.config import SIZES, JointDiTConfig
from model.lora import attach_adapter, lora_config
from model.train_plan import batch_lines, disk_line, estimate_memory, label_name
from model.transformer import JointDiT

# Forward passes that a step costs: one of the reference, one of the policy, and a backward pass that costs two.
POLICY_PASSES, REFERENCE_PASSES = 3, 1
H100_FLOPS, ASSUMED_SHARE = 989e12, 0.4  # dense bfloat16, as its maker says; what a well-fed transformer gets of it


def plan(config: TrainConfig) -> str:
    """Pairs, batches and their tokens, parameters trained, memory, time and disk, one line each.

    Raises:
        ValueError: no data, or data that does not fit the model.
    """
    dataset, network = PairDataset.load(config.dataset), planned_network(config)
    dataset.check_network(network)
    dataset.check_finite()
    sampler = BucketBatchSampler(
        dataset.labels, lambda label: config.train_batch_size, config.seed, config.dataloader_drop_last
    )
    steps = Steps.of(len(sampler), config.num_workers or config.world_size, config)
    batches = {
        label_name(label): (2 * num_tokens(label, network.config), sampler.rows_in_batch(label))
        for label in dict.fromkeys(dataset.labels(0))
    }
    is_lora = config.trainable == "lora"
    seconds = None if config.model in SIZES else _forward_seconds(network, network.config, dataset.shapes[0])
    model = attach_adapter(network, lora_config(config), config.seed) if is_lora else network.requires_grad_(True)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in model.parameters())
    largest = max(tokens * pairs for tokens, pairs in batches.values())
    copies = int(not is_lora and not config.precompute_ref_errors)
    return "\n".join(
        [
            f"{len(dataset)} pairs in {len(set(dataset.shapes))} shape(s), {steps.per_epoch} steps an epoch, "
            f"{steps.total} steps",
            *batch_lines(batches, "pairs"),
            f"trains {trained:,} of {total:,} parameters ({config.trainable}); reference: {_reference(config)}",
            estimate_memory(model, network.config, config, largest, reference_copies=copies).line(),
            _time_line(config, network.config, total, largest, steps, seconds),
            disk_line(model, trained, config),
            f"dry run: nothing written; output {config.output_dir}",
        ]
    )


def num_tokens(label: Any, network: JointDiTConfig) -> int:
    """Tokens of one clip of a pair with this label."""
    return network.num_tokens({"video": label[1:4], "audio": label[5:7]})


def _reference(config: TrainConfig) -> str:
    if config.precompute_ref_errors:
        return "its errors, computed before the first step"
    if config.trainable == "full":
        return "a frozen copy"
    return "the adapter as it was" if config.adapter == "continue" else "the network without its adapter"


def _time_line(
    config: TrainConfig, network: JointDiTConfig, parameters: int, tokens: int, steps: Steps, seconds: float | None
) -> str:
    """Arithmetic of the largest batch, and where the weights are there a pass of one clip measured on this CPU."""
    checkpointing = bool(config.activation_checkpointing or config.gradient_checkpointing)
    passes = POLICY_PASSES + REFERENCE_PASSES + checkpointing
    # Each token meets the parameters of its own modality alone: about all but the other one's experts.
    per_token = 2 * active_parameters(network, parameters) + 4 * network.num_layers * network.dim * tokens
    batches = config.gradient_accumulation_steps
    work = passes * batches * tokens * per_token
    hours = steps.total * work / (H100_FLOPS * ASSUMED_SHARE) / 3600
    line = (
        f"time, about: {work / 1e12:.3g} TFLOP a step and device, so {hours:.3g} h for {steps.total} steps at "
        f"{ASSUMED_SHARE:.0%} of an H100's bfloat16 rate"
    )
    if seconds is None:
        return line
    here = seconds * passes * batches * 2 * config.train_batch_size
    return f"{line}; on this CPU {here:.2g} s a step, {steps.total * here / 60:.2g} min (one clip's pass was timed)"


def active_parameters(network: JointDiTConfig, parameters: int) -> int:
    """Parameters that one token meets, where each modality has its own feed-forward."""
    per_expert = network.num_layers * 2 * network.dim * network.ffn_dim
    return parameters - (len(network.experts) - 1) * per_expert


@torch.no_grad()
def _forward_seconds(network: JointDiT, config: JointDiTConfig, label: tuple[int, ...]) -> float:
    """Time of one clip's pass, the better of two."""
    arguments = {
        "video": torch.zeros(1, *label[:4], dtype=network.dtype),
        "audio": torch.zeros(1, *label[4:7], dtype=network.dtype),
        "timestep": torch.full((1,), 500.0),
        "text": torch.zeros(1, config.text_len, config.text_dim, dtype=network.dtype),
        "text_mask": torch.ones(1, config.text_len, dtype=torch.bool),
        "num_frames": label[-3],
    }
    best = math.inf
    for _ in range(2):
        started = time.perf_counter()
        velocities(network, arguments)
        best = min(best, time.perf_counter() - started)
    return best
