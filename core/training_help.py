"""Help text of the training commands: the project's own settings, without the fields of TrainingArguments."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from typing import Any

from core.cli import program_name

NAME_WIDTH = 28


def training_help(about: str, settings_class: type[Any]) -> str:
    """Return usage and every setting of a dataclass with its help and default, the most specific settings first.

    The settings of a class with an attribute `section` follow the others, under this heading.
    """
    known = {setting.name: setting for setting in fields(settings_class)}
    sections: dict[str, dict[str, None]] = {"": {}}  # heading -> names
    for declared in settings_class.__mro__:
        section = sections.setdefault(vars(declared).get("section", ""), {})
        section |= {name: None for name in vars(declared).get("__annotations__", ()) if name in known}
    lines: list[str] = []
    for heading, names in sections.items():
        lines += ["", heading] if heading else []
        lines += [_line(name, f"{known[name].metadata['help']}{_default(known[name])}") for name in names]
        lines += [] if heading else [_line("resume_from_checkpoint", "'latest', or a checkpoint folder of this run")]
    return "\n".join(
        [
            f"usage: {program_name()} [--config FILE.yaml] [--SETTING VALUE ...]",
            "",
            about,
            "Flags override the YAML file, the YAML file overrides the defaults.",
            "",
            *lines,
            "",
            "Every field of transformers.TrainingArguments is accepted as well: max_steps, gradient_checkpointing,",
            "gradient_accumulation_steps, bf16, max_grad_norm, torch_compile, dataloader_num_workers, ...",
        ]
    )


def _line(name: str, text: str) -> str:
    return f"  --{name:<{NAME_WIDTH}} {text}"


def _default(setting: Field[Any]) -> str:
    return "" if setting.default in (MISSING, None, "") else f" [{setting.default}]"
