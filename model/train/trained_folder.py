"""Export of a trained model: folders that load as any other model folder."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from peft import PeftModel
from torch import Tensor

from core.atomic import atomic_write_text
from model.javisdit.pipeline import read_defaults
from model.javisdit.weights.folders import PIPELINE_CONFIG_NAME, base_folder
from model.presets import PRESETS
from model.train.joint_trainer import JointTrainer, save_adapter

EMA_FOLDER = "ema"
_WRAPPER = "network."


def export_model(trainer: JointTrainer, base: str) -> None:
    """Write the trained weights into the run's folder and their average, where there is one, into `ema/`.

    A LoRA run gives adapter folders; any other run gives pipeline folders that hold the network and refer to `base` for
    codecs and text encoder. Every process must call this, since sharded weights are gathered.
    """
    folder = Path(str(trainer.args.output_dir))
    targets: list[tuple[Path, Any]] = [(folder, nullcontext())]
    if trainer.average is not None:
        targets.append((folder / EMA_FOLDER, trainer.averaged()))
    for target, weights in targets:
        with weights:
            state = trainer.accelerator.get_state_dict(trainer.deepspeed or trainer.model)
            if trainer.args.should_save:
                _write(trainer, state, target, base)


def _write(trainer: JointTrainer, state: dict[str, Tensor], folder: Path, base: str) -> None:
    model = trainer.accelerator.unwrap_model(trainer.model)
    if isinstance(model, PeftModel):
        save_adapter(model, folder, state)
        return
    own = {name.removeprefix(_WRAPPER): tensor for name, tensor in state.items()}
    trainer.network.save_pretrained(folder / "transformer", state=own)
    where = base if base in PRESETS else os.path.relpath(base, folder)
    defaults = read_defaults(base_folder(base) / PIPELINE_CONFIG_NAME)
    settings = {"base": where, "defaults": asdict(defaults)}
    atomic_write_text(folder / PIPELINE_CONFIG_NAME, json.dumps(settings, indent=2) + "\n")
