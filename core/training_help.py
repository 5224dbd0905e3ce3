"""`--help` of the training commands: the project's own settings, without transformers' hundred others."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from typing import Any


def training_help(module: str, about: str, config_class: type[Any]) -> str:
    """Usage, and every setting that a dataclass of this project declares, with its default."""
    own = {
        name: None
        for declared in config_class.__mro__
        if declared.__module__.split(".")[0] in ("model", "dpo")
        for name in declared.__annotations__
    }
    known = {field.name: field for field in fields(config_class)}
    lines = [f"  --{name:<28} {known[name].metadata['help']}{_default(known[name])}" for name in own]
    return "\n".join(
        [
            f"usage: python -m {module} [--config FILE.yaml] [--SETTING VALUE ...]",
            "",
            f"{about} Flags win over the YAML, the YAML over the defaults.",
            "",
            *lines,
            f"  --{'resume_from_checkpoint':<28} 'latest', or a checkpoint folder of this run",
            "",
            "Every field of transformers.TrainingArguments is accepted as well: max_steps, gradient_checkpointing,",
            "gradient_accumulation_steps, bf16, max_grad_norm, torch_compile, dataloader_num_workers, ...",
        ]
    )


def _default(setting: Field[Any]) -> str:
    return "" if setting.default in (MISSING, None, "") else f" [{setting.default}]"
