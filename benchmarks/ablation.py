"""The paper's two ablations at the tiny size: `python -m benchmarks.ablation --work_dir runs/bootstrap --output DIR`.

Each variant starts from the same video backbone and the same latents (of `python -m synthetic.bootstrap`) and is
trained for the same number of steps: stage 1 on audio, then on both modalities. The benchmark measures the error on
held-out scenes and the grades of generated clips. An interrupted run can be continued; finished variants are kept.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.atomic import atomic_write_text
from core.cli import parse_config
from model.train.callbacks import read_log
from model.train.command import train
from model.train.config import TrainConfig
from model.train.run_state import latest_checkpoint
from synthetic.grade import Grade, GradeConfig, grade

VARIANTS: dict[str, dict[str, Any]] = {
    "MS-MoE, TA-RoPE, full": {"ffn": "modality", "audio_positions": "ta_rope", "trainable": "full"},
    "shared FFN, TA-RoPE, full": {"ffn": "shared", "audio_positions": "ta_rope", "trainable": "full"},
    "shared FFN, TA-RoPE, LoRA": {"ffn": "shared", "audio_positions": "ta_rope", "trainable": "lora"},
    "MS-MoE, vanilla, full": {"ffn": "modality", "audio_positions": "vanilla", "trainable": "full"},
}
SHOWN = ("pitch", "material", "num_impacts", "color", "size", "side")


@dataclass(frozen=True, kw_only=True)
class AblationConfig:
    """Settings of `python -m benchmarks.ablation`."""

    output: Path = field(metadata={"help": "folder for the trained variants and their results"})
    work_dir: Path = field(default=Path("runs/bootstrap"), metadata={"help": "work_dir of synthetic.bootstrap"})
    stage1_steps: int = field(default=250, metadata={"help": "training steps on audio alone"})
    stage2_steps: int = field(default=1000, metadata={"help": "training steps on both modalities"})
    batch_size: int = field(default=8, metadata={"help": "scenes per step"})
    learning_rate: float = field(default=3e-3, metadata={"help": "learning rate of Muon, also for LoRA's matrices"})
    lora_r: int = field(default=32, metadata={"help": "rank of the LoRA variant"})
    num_captions: int = field(default=200, metadata={"help": "held-out captions per variant"})
    num_workers: int = field(default=2, metadata={"help": "processes that generate and measure"})
    only: int | None = field(default=None, metadata={"help": "number of one variant, 0 to 3; all by default"})


def main(argv: Sequence[str] | None = None) -> int:
    config = parse_config(AblationConfig, argv)
    names = list(VARIANTS) if config.only is None else [list(VARIANTS)[config.only]]
    rows = [run_variant(config, name) for name in names]
    print(table(rows))
    return 0


def run_variant(config: AblationConfig, name: str) -> dict[str, Any]:
    """Train and measure one variant, and return its measurements, which are also stored in its folder."""
    folder = config.output / name.replace(", ", "-").replace(" ", "_").lower()
    result = folder / "result.json"
    if not result.is_file():
        model = _train(config, VARIANTS[name], folder)
        logged = [line for line in read_log(folder / "stage2") if "eval_loss" in line][-1]
        grades, offset = grade(
            GradeConfig(model=str(model), num_captions=config.num_captions, num_workers=config.num_workers)
        )
        row = {"variant": name, "video": logged["eval_loss/video"], "audio": logged["eval_loss/audio"]}
        row |= {one.attribute: [one.right, one.total] for one in grades} | {"desync": offset}
        atomic_write_text(result, json.dumps(row, indent=2) + "\n")
    return json.loads(result.read_text(encoding="utf-8"))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the variants as a Markdown table."""
    lines = ["| variant | video error | audio error | " + " | ".join(SHOWN) + " | heard - seen |"]
    lines.append("|" + "---|" * (len(SHOWN) + 4))
    for row in rows:
        cells = [_share(Grade(name, *row[name])) for name in SHOWN]
        errors = f"{row['video']:.4f} | {row['audio']:.4f}"
        lines.append(f"| {row['variant']} | {errors} | {' | '.join(cells)} | {row['desync']:.3f} s |")
    return "\n".join(lines)


def _train(config: AblationConfig, variant: dict[str, Any], folder: Path) -> Path:
    """Train stage 1, then stage 2, and return the path of the model with averaged weights."""
    shared = {
        "dataset": str(config.work_dir / "train"),
        "eval_dataset": str(config.work_dir / "held_out"),
        "learning_rate": config.learning_rate,
        "optimizer": "muon",
        "lr_scheduler_type": "linear",
        "warmup_steps": 50,
        "ema_decay": 0.98,
        "per_device_train_batch_size": config.batch_size,
        "dataloader_drop_last": True,
        "bf16": True,
        "use_cpu": True,
        "torch_compile": True,
        "save_steps": 250,
        "save_total_limit": 1,
        "logging_steps": 25,
        "eval_strategy": "steps",
        "shift_scale": 12.0,
        "seed": 0,
    }
    stage1, stage2 = folder / "stage1", folder / "stage2"
    backbone = str(config.work_dir / "backbone" / "ema" / "transformer")
    first = {"model": str(config.work_dir / "initial"), "video_backbone": backbone, "trainable": "audio"}
    first |= {name: variant[name] for name in ("ffn", "audio_positions")} | {"max_steps": config.stage1_steps}
    second = {"model": str(stage1 / "ema"), "trainable": variant["trainable"], "max_steps": config.stage2_steps}
    if variant["trainable"] == "lora":
        second |= {"lora_r": config.lora_r, "lora_alpha": config.lora_r, "lora_dropout": 0.0}
    for output, own in ((stage1, first), (stage2, second)):
        resume = "latest" if latest_checkpoint(output) else None
        settings = {**shared, **own, "eval_steps": own["max_steps"], "output_dir": str(output)}
        train(TrainConfig(**settings, resume_from_checkpoint=resume))
    return stage2 / "ema"


def _share(one: Grade) -> str:
    low, high = one.interval
    return f"{one.right / one.total:.0%} ({low:.0%}-{high:.0%})"


if __name__ == "__main__":
    sys.exit(main())
