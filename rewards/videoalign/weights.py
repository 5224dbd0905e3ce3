"""Read published VideoReward checkpoints: find the files, merge LoRA while streaming, map 4.45 names to 5.x.

Source: docs/upstream/videoalign.md, section 8.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate import init_empty_weights
from torch import Tensor

from core.state_files import StateFiles, fill_module
from rewards.videoalign.config import MODEL_CONFIG_NAME, VideoAlignConfig
from rewards.videoalign.network import VideoAlignNetwork

if TYPE_CHECKING:
    from rewards.videoalign.prompt import TokenIds

FULL_NAMES = ("model.pth", "model.safetensors")
ADAPTER_NAME = "adapter_model.safetensors"
NON_LORA_NAME = "non_lora_state_dict.pth"
BASE_FOLDER = "base_model"  # where the base weights of the adapter layout may lie, in the root folder

_LORA = re.compile(r"\.(lora_[AB])(\.default)?\.")
_STEP = re.compile(r"checkpoint-(\d+)")
_OURS = {"visual.": "visual.", "model.": "language_model.", "rm_head.": "rm_head."}  # published prefix -> ours


@dataclass(frozen=True)
class CheckpointFolder:
    """Paths of a checkpoint."""

    root: Path  # holds model_config.json
    step: Path  # holds the weights and tokenizer/
    file: Path | None = None  # that was named, of several that may lie in `step`


def find_checkpoint(path: Path) -> CheckpointFolder:
    """Find the checkpoint in a root folder (its highest checkpoint-N), a checkpoint-N folder, or of a weight file.

    Raises:
        ValueError: the folder holds no checkpoint-N.
    """
    if path.is_file():
        return CheckpointFolder(path.parent.parent, path.parent, path)
    if _STEP.fullmatch(path.name):
        return CheckpointFolder(path.parent, path)
    steps = {int(match[1]): one for one in path.iterdir() if one.is_dir() and (match := _STEP.fullmatch(one.name))}
    if not steps:
        raise ValueError(
            f"{path} holds no checkpoint-N folder. Give the folder that holds {MODEL_CONFIG_NAME} and checkpoint-N/ "
            f"with {FULL_NAMES[0]} and tokenizer/, as fetched from KwaiVGI/VideoReward."
        )
    return CheckpointFolder(path, steps[max(steps)])


def load_network(
    folder: CheckpointFolder,
    config: VideoAlignConfig,
    tokens: TokenIds,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> VideoAlignNetwork:
    """The network with the weights of a checkpoint, LoRA merged in float32.

    Raises:
        ValueError: files are missing, or their tensors are not those of this network.
    """
    with init_empty_weights(include_buffers=False):  # buffers are no part of a checkpoint, so they must be real
        network = VideoAlignNetwork(config, tokens)
    sources = _open_sources(folder, config)
    raw_names = [name for source, _ in sources for name in source.shapes]
    stream = ((n, t) for source, skip in sources for n, t in source.tensors(device=device) if our_name(n) not in skip)
    tensors = merge_lora(stream, lora_targets(raw_names), config)
    fill_module(network, ((name, tensor.to(dtype)) for name, tensor in tensors), str(folder.step), raw_names)
    return network.to(device)


def merge_lora(
    tensors: Iterable[tuple[str, Tensor]], targets: Set[str], config: VideoAlignConfig
) -> Iterator[tuple[str, Tensor]]:
    """Published names and tensors to ours, with W + scale * B A (in float32) in place of each target's three tensors.

    The language model's output layer, which no score uses, is left out.

    Raises:
        ValueError: a target lacks one of its tensors, or its rank is not the configured one.
    """
    parts: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
    for raw_name, tensor in tensors:
        name = our_name(raw_name)
        if name is None:
            continue
        if name not in targets:
            yield name, tensor
            continue
        role = _LORA.search(raw_name)
        parts[name][role[1] if role else "weight"] = tensor
        if len(parts[name]) == 3:
            yield name, _merged(name, **parts.pop(name), config=config)
    if parts:
        name, found = next(iter(parts.items()))
        raise ValueError(
            f"The checkpoint adapts {name} by LoRA, but holds only its {', '.join(found)} ({len(parts)} such). It is "
            "incomplete: fetch or save it again."
        )


def lora_targets(raw_names: Iterable[str]) -> set[str]:
    """Return our names of the weights that LoRA changes."""
    return {str(our_name(name)) for name in raw_names if _LORA.search(name)}


def our_name(raw_name: str) -> str | None:
    """The parameter that a published tensor belongs to; None for the output layer. Knows transformers 5 names too."""
    name = raw_name.removeprefix("base_model.model.").replace(".base_layer.", ".")
    name = _LORA.sub(".", name)
    name = re.sub(r"^model\.visual\.", "visual.", name)
    name = re.sub(r"^model\.language_model\.", "model.", name)
    if name.startswith("lm_head."):
        return None
    for published, ours in _OURS.items():
        if name.startswith(published):
            return ours + name.removeprefix(published)
    return name


def published_state(network: VideoAlignNetwork) -> dict[str, Tensor]:
    """The weights under the names of a published checkpoint without LoRA, for saving as model.safetensors."""
    state = network.state_dict()
    return {
        published + name.removeprefix(ours): tensor
        for name, tensor in state.items()
        for published, ours in _OURS.items()
        if name.startswith(ours)
    }


def _merged(name: str, *, weight: Tensor, lora_A: Tensor, lora_B: Tensor, config: VideoAlignConfig) -> Tensor:
    expected = (config.lora_r, weight.shape[1]), (weight.shape[0], config.lora_r)
    if (tuple(lora_A.shape), tuple(lora_B.shape)) != expected:
        raise ValueError(
            f"The LoRA of {name} {tuple(weight.shape)} is {tuple(lora_A.shape)} and {tuple(lora_B.shape)}, not of rank "
            f"{config.lora_r}. Correct lora_r (and lora_alpha) in {MODEL_CONFIG_NAME}."
        )
    return weight.float() + config.lora_scale * (lora_B.float() @ lora_A.float())


def _open_sources(folder: CheckpointFolder, config: VideoAlignConfig) -> list[tuple[StateFiles, set[str | None]]]:
    """Files to read, each with our names of tensors in it that a file before it replaces."""
    full = [folder.file] if folder.file else [folder.step / name for name in FULL_NAMES]
    for path in full:
        if path.is_file() and path.name not in (ADAPTER_NAME, NON_LORA_NAME):
            return [(StateFiles(path), set())]
    present = [name for name in (ADAPTER_NAME, NON_LORA_NAME) if (folder.step / name).is_file()]
    if len(present) < 2:
        found = f"only {present[0]}" if present else "neither"
        raise ValueError(
            f"{folder.step} holds no weights: a full checkpoint has {' or '.join(FULL_NAMES)}, and an adapter has both "
            f"{ADAPTER_NAME} and {NON_LORA_NAME}, of which there is {found}. Fetch or copy the missing file."
        )
    non_lora = StateFiles(folder.step / NON_LORA_NAME)
    replaced = {our_name(name) for name in non_lora.shapes}
    base = StateFiles(_find_base(folder.root, config.base_model))
    return [(StateFiles(folder.step / ADAPTER_NAME), set()), (non_lora, set()), (base, replaced)]


def _find_base(root: Path, name: str) -> Path:
    for path in (root / BASE_FOLDER, root / name, Path(name)):
        if path.exists():
            return path
    raise ValueError(
        f"The checkpoint in {root} is an adapter and needs the weights of its base model, {name}. Put its "
        f"safetensors files into {root / BASE_FOLDER}, or name their folder as model_name_or_path in "
        f"{MODEL_CONFIG_NAME}."
    )
