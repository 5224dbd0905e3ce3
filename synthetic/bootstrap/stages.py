"""Training of the tiny preset's joint transformer in three runs of `model.train`: video backbone, stage 1, stage 2."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch

from core.cli import echo
from core.lineage import UNTRAINED, write_lineage
from model.javisdit.network.config import JointDiTConfig
from model.javisdit.network.transformer import JointDiT
from model.javisdit.pipeline import GenerationDefaults
from model.javisdit.weights.folders import PIPELINE_CONFIG_NAME, load_transformer
from model.train.callbacks import read_log
from model.train.command import train
from model.train.config import TrainConfig
from model.train.trained_folder import EMA_FOLDER

TINY_CONFIG = JointDiTConfig(
    dim=192,
    ffn_dim=512,
    num_heads=6,
    num_layers=6,
    freq_dim=128,
    text_dim=64,
    text_len=40,
    video_channels=8,
    audio_channels=8,
    audio_patch=(1, 16),  # all bands of one latent step: one token shows both pitch and onset
)
STAGES = ("backbone", "stage1", "stage2")


def train_stages(
    work: Path, defaults: GenerationDefaults, shared: Mapping[str, Any], own: Mapping[str, Mapping[str, Any]]
) -> JointDiT:
    """Train the stages that are not finished, and return the network with the averaged weights of the last stage.

    Args:
        work: folder with `video_codec`, `audio_codec`, `text_encoder`, and the prepared clips `train` and `held_out`.
        defaults: generation defaults of the model folders.
        shared: settings of `model.train` for every stage.
        own: stage -> further settings.
    """
    start = initial_model(work, defaults, int(shared.get("seed", 0)))
    starts: tuple[dict[str, Any], ...] = (
        {"model": str(start), "trainable": "full"},
        {
            "model": str(start),
            "trainable": "audio",
            "video_backbone": str(work / "backbone" / EMA_FOLDER / "transformer"),
        },
        {"model": str(work / "stage1" / EMA_FOLDER), "trainable": "full"},
    )
    data = {"dataset": str(work / "train"), "eval_dataset": str(work / "held_out"), "resume_from_checkpoint": "latest"}
    for name, begin in zip(STAGES, starts, strict=True):
        train(_train_config({**shared, **own[name], **begin, **data, "output_dir": str(work / name)}))
        _echo_errors(work / name)
    return load_transformer(work / STAGES[-1] / EMA_FOLDER)


def _echo_errors(folder: Path) -> None:
    """Print the last error on held-out scenes that a stage has logged."""
    logged = [line for line in read_log(folder) if "eval_loss" in line]
    if logged:
        errors = {name: logged[-1].get(f"eval_loss/{name}") for name in ("video", "audio")}
        shown = ", ".join(f"{name} {error:.4f}" for name, error in errors.items() if error is not None)
        echo(f"{folder.name}: error on held-out scenes: {shown}")


def initial_model(work: Path, defaults: GenerationDefaults, seed: int) -> Path:
    """Return a model folder with a randomly initialised video network and the trained codecs; write it if missing."""
    folder = work / "initial"
    if not (folder / PIPELINE_CONFIG_NAME).is_file():
        torch.manual_seed(seed)
        JointDiT(replace(TINY_CONFIG, modalities=("video",))).save_pretrained(folder / "transformer")
        write_lineage(folder, UNTRAINED)
        parts = {name: f"../{name}" for name in ("video_codec", "audio_codec", "text_encoder")}
        settings = {"components": parts, "defaults": asdict(defaults)}
        (folder / PIPELINE_CONFIG_NAME).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return folder


def _train_config(values: Mapping[str, Any]) -> TrainConfig:
    known = [field.name for field in fields(TrainConfig)]
    for name in values:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise ValueError(f"model.train has no setting {name!r}: correct it; the nearest match is {nearest!r}.")
    return TrainConfig(**values)
