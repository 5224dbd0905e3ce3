"""What a training run would do and need, told before it starts."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from media.mel import NUM_MELS
from model.audio_lengths import training_mel_frames
from model.buckets import Bucket, BucketTable
from model.config import JointDiTConfig
from model.sizes import ClipSize
from model.train_config import TrainConfig
from model.train_start import choose_trainable, open_clips, planned_network, trained_modalities
from model.training_data import batch_sampler

MEL_PER_LATENT = 4  # on both axes, of the published audio codec
GIB = 2**30
# Activations kept for the backward pass, in numbers per token and block: measured at 36 times the width for a
# feed-forward of four widths (docs/results.md, "The network"), which these two share out.
KEPT_WIDTHS, KEPT_FFN_WIDTHS = 20, 4
KEPT_WITH_CHECKPOINTING = 1  # width: the block's input


@dataclass(frozen=True)
class MemoryEstimate:
    """GiB on each device, before any sharding."""

    weights: float
    gradients: float
    optimizer: float
    average: float
    activations: float

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.average + self.activations

    def line(self) -> str:
        return (
            f"memory per device without sharding, about: weights {self.weights:.2f} + gradients {self.gradients:.2f} + "
            f"optimiser {self.optimizer:.2f} + average {self.average:.2f} + activations {self.activations:.2f} = "
            f"{self.total:.1f} GiB"
        )


def plan(config: TrainConfig) -> str:
    """Parameters trained, batches and their tokens, memory, disk and steps, one line each."""
    network = planned_network(config)
    model = choose_trainable(network, config)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in model.parameters())
    modalities = trained_modalities(network, config)
    lines = [f"trains {trained:,} of {total:,} parameters ({config.trainable}), on {' and '.join(modalities)}"]
    if config.dataset is not None:
        batches, steps = _dataset_batches(config, network.config, modalities)
        lines += [*_batch_lines(batches), steps]
    else:
        batches = _bucket_batches(config, network.config, modalities)
        lines += _batch_lines(batches)
    largest = max(tokens * clips for tokens, clips in batches.values())
    lines.append(estimate_memory(model, network.config, config, largest).line())
    lines.append(_disk_line(model, trained, config))
    return "\n".join([*lines, f"dry run: nothing written; output {config.output_dir}"])


def estimate_memory(model: nn.Module, network: JointDiTConfig, config: TrainConfig, tokens: int) -> MemoryEstimate:
    """Memory of a step on so many tokens; float32 weights and AdamW's two moments for what trains."""
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    moments = 1 if config.optimizer == "muon" else 2
    block = KEPT_WIDTHS * network.dim + KEPT_FFN_WIDTHS * network.ffn_dim
    if config.activation_checkpointing or config.gradient_checkpointing:
        kept = KEPT_WITH_CHECKPOINTING * network.dim * network.num_layers + block
    else:
        kept = block * network.num_layers
    size = 2 if config.bf16 else 4
    return MemoryEstimate(
        weights / GIB,
        4 * trained / GIB,
        4 * moments * trained / GIB,
        (4 * trained if config.ema_decay else 0) / GIB,
        size * kept * tokens / GIB,
    )


def _dataset_batches(
    config: TrainConfig, network: JointDiTConfig, modalities: tuple[str, ...]
) -> tuple[dict[str, tuple[int, int]], str]:
    clips = open_clips(config, modalities)
    clips.check_network(network)
    sampler = batch_sampler(clips, config, network)
    batches = {
        _label_name(label): (clips.num_tokens(label, network), sampler.rows_in_batch(label))
        for label in dict.fromkeys(clips.labels(0))
        if label is not None
    }
    updates = math.ceil(len(sampler) / config.world_size / config.gradient_accumulation_steps)
    steps = config.max_steps if config.max_steps > 0 else math.ceil(config.num_train_epochs * updates)
    return batches, f"{len(clips)} clips, {updates} steps an epoch, {steps} steps"


def _bucket_batches(
    config: TrainConfig, network: JointDiTConfig, modalities: tuple[str, ...]
) -> dict[str, tuple[int, int]]:
    """Published latent sizes of every bucket's first aspect ratio; the others have about as many tokens."""
    assert config.buckets is not None
    table = BucketTable.from_dict(config.buckets)
    batches: dict[str, tuple[int, int]] = {}
    for bucket in table:
        tokens = network.num_tokens(_bucket_sizes(table, bucket, config, modalities))
        name = f"{bucket.resolution} {bucket.num_frames} frames"
        published = table.rule(bucket).batch_size
        clips = max(config.tokens_per_batch // tokens, 1) if config.tokens_per_batch else published
        if tokens > batches.get(name, (0, 0))[0]:
            batches[name] = (tokens, clips)
    return batches


def _bucket_sizes(
    table: BucketTable, bucket: Bucket, config: TrainConfig, modalities: tuple[str, ...]
) -> Mapping[str, tuple[int, ...]]:
    seconds = bucket.num_frames / (config.audio_fps if config.trainable == "audio" else config.fps)
    sizes: dict[str, tuple[int, ...]] = {
        "video": ClipSize(bucket.num_frames, *table.size(bucket)).latent_size,
        "audio": (training_mel_frames(seconds) // MEL_PER_LATENT, NUM_MELS // MEL_PER_LATENT),
    }
    return {name: sizes[name] for name in modalities}


def _batch_lines(batches: Mapping[str, tuple[int, int]]) -> list[str]:
    return [
        f"{name}: {clips} clips of {tokens:,} tokens = {clips * tokens:,} tokens per batch and device"
        for name, (tokens, clips) in batches.items()
    ]


def _label_name(label: Any) -> str:
    num_frames, height, width = label[-3:]
    return f"{height}x{width} {num_frames} frames"


def _disk_line(model: nn.Module, trained: int, config: TrainConfig) -> str:
    """A checkpoint holds the weights (the adapter alone in a LoRA run), two moments and the average."""
    stored = trained if config.trainable == "lora" else sum(parameter.numel() for parameter in model.parameters())
    average = trained if config.ema_decay else 0
    checkpoint = 4 * (stored + 2 * trained + average) / GIB
    final = 4 * stored * (2 if config.ema_decay else 1) / GIB
    kept = config.save_total_limit or 1
    return f"disk, about: {kept} checkpoints of {checkpoint:.2f} GiB and the model of {final:.2f} GiB"
