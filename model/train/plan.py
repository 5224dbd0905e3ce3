"""The plan of a training run: parameters, batches, memory, disk and steps, printed by a dry run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from media.mel import NUM_MELS
from model.data.batches import Steps
from model.data.buckets import Bucket, BucketTable
from model.data.latent_dataset import batch_sampler
from model.javisdit.codecs.audio_lengths import training_mel_frames
from model.javisdit.network.config import JointDiTConfig
from model.javisdit.network.sizes import ClipSize
from model.train.config import TrainConfig
from model.train.start import choose_trainable, open_clips, planned_network, trained_modalities

MEL_PER_LATENT = 4  # on both axes, of the published audio codec
GIB = 2**30
# Bytes that a block keeps per token for the backward pass, per unit of its width and of its feed-forward width, by
# (adapter, bf16), measured with autograd's hooks for saved tensors. Norms, modulation and residual stay in float32.
KEPT_BYTES = {(False, False): (88, 8), (True, False): (112, 12), (False, True): (86, 4), (True, True): (94, 8)}
PUBLISHED_ENCODERS = 5_680_910_336 + 126_892_531 + 55_376_873 + 55_264_897  # text encoder, codecs, vocoder


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory in GiB on each device, without sharding."""

    weights: float
    gradients: float
    optimizer: float
    average: float
    activations: float
    reference: float = 0.0  # a second network that preference training may hold

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.average + self.activations + self.reference

    def line(self) -> str:
        reference = f"reference {self.reference:.2f} + " if self.reference else ""
        return (
            f"memory per device without sharding, about: weights {self.weights:.2f} + gradients {self.gradients:.2f} + "
            f"optimiser {self.optimizer:.2f} + average {self.average:.2f} + {reference}"
            f"activations {self.activations:.2f} = "
            f"{self.total:.1f} GiB"
        )


def plan(config: TrainConfig) -> str:
    """Return the plan: parameters trained, batches and their tokens, memory, disk and steps, one line each."""
    network = planned_network(config)
    model = choose_trainable(network, config)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in model.parameters())
    modalities = trained_modalities(network, config)
    lines = [f"trains {trained:,} of {total:,} parameters ({config.trainable}), on {' and '.join(modalities)}"]
    if config.dataset is not None:
        batches, steps = _dataset_batches(config, network.config, modalities)
        lines += [*batch_lines(batches), steps]
    else:
        batches = _bucket_batches(config, network.config, modalities)
        lines += batch_lines(batches)
    largest = max(tokens * clips for tokens, clips in batches.values())
    moments = 1 if config.optimizer == "muon" else 2
    lines.append(estimate_memory(model, network.config, config, largest, moments).line())
    if config.clips is not None:
        lines.append(
            "clips are encoded as they come, so each device holds the text encoder and the codecs as well (published: "
            f"{4 * PUBLISHED_ENCODERS / GIB:.1f} GiB); a dataset of `python -m model.prepare` spares that"
        )
    lines.append(disk_line(model, trained, config))
    return "\n".join([*lines, f"dry run: nothing written; output {config.output_dir}"])


def estimate_memory(
    model: nn.Module, network: JointDiTConfig, config: Any, tokens: int, moments: int = 2, reference_copies: int = 0
) -> MemoryEstimate:
    """Return the memory of a step on so many tokens, with AdamW's two float32 moments per trained parameter.

    Precision, checkpointing, the trained part and the average are read from `config`, a training command's settings.
    Under bf16 a float32 weight has a copy until its backward pass: every weight, or with checkpointing trained ones.
    """
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    reference = weights * reference_copies
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    checkpointing = config.activation_checkpointing or config.gradient_checkpointing
    if config.bf16:
        cast = (p for p in model.parameters() if p.dtype == torch.float32 and (p.requires_grad or not checkpointing))
        weights += 2 * sum(parameter.numel() for parameter in cast)
    per_width, per_ffn = KEPT_BYTES[config.trainable == "lora", config.bf16]
    block = per_width * network.dim + per_ffn * network.ffn_dim
    if checkpointing:  # each block's input, and one block at a time
        kept = getattr(torch, config.dtype).itemsize * network.dim * network.num_layers + block
    else:
        kept = block * network.num_layers
    return MemoryEstimate(
        weights / GIB,
        4 * trained / GIB,
        4 * moments * trained / GIB,
        (4 * trained if config.ema_decay else 0) / GIB,
        kept * tokens / GIB,
        reference / GIB,
    )


def _dataset_batches(
    config: TrainConfig, network: JointDiTConfig, modalities: tuple[str, ...]
) -> tuple[dict[str, tuple[int, int]], str]:
    clips = open_clips(config, modalities)
    clips.check_network(network)
    sampler = batch_sampler(clips, config, network)
    batches = {
        label_name(label): (clips.num_tokens(label, network), sampler.rows_in_batch(label))
        for label in dict.fromkeys(clips.labels(0))
        if label is not None
    }
    steps = Steps.of(len(sampler), config.num_workers or config.world_size, config)
    return batches, f"{len(clips)} clips, {steps.per_epoch} steps an epoch, {steps.total} steps"


def _bucket_batches(
    config: TrainConfig, network: JointDiTConfig, modalities: tuple[str, ...]
) -> dict[str, tuple[int, int]]:
    """Return tokens and clips per resolution and length, at the aspect ratio with most tokens (published codecs)."""
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


def batch_lines(batches: Mapping[str, tuple[int, int]], what: str = "clips") -> list[str]:
    """Return a line per shape of clip: its tokens, the clips of a batch, and the tokens of a batch."""
    return [
        f"{name}: {clips} {what} of {tokens:,} tokens = {clips * tokens:,} tokens per batch and device"
        for name, (tokens, clips) in batches.items()
    ]


def label_name(label: Any) -> str:
    """Return a name such as "240x432 81 frames" for a label that ends with frames, height and width."""
    num_frames, height, width = label[-3:]
    return f"{height}x{width} {num_frames} frames"


def disk_line(model: nn.Module, trained: int, config: Any) -> str:
    """Return the line on disk space: a checkpoint holds weights (of LoRA the adapter), two moments, the average."""
    stored = trained if config.trainable == "lora" else sum(parameter.numel() for parameter in model.parameters())
    average = trained if config.ema_decay else 0
    checkpoint = 4 * (stored + 2 * trained + average) / GIB
    final = 4 * stored * (2 if config.ema_decay else 1) / GIB
    kept = config.save_total_limit or 1
    return f"disk, about: {kept} checkpoints of {checkpoint:.2f} GiB and the model of {final:.2f} GiB"
