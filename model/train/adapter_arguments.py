"""Settings of the adapter that a training command trains, with the published defaults."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal

from model.train.freezing import LORA_ALPHA, LORA_DROPOUT, LORA_R, LORA_TARGET_MODULES

Dtype = Literal["float32", "bfloat16"]


@dataclass
class AdapterArguments:
    """Settings that `model.lora.lora_config` reads, and the precision of frozen weights."""

    model: str = field(
        default="", metadata={"help": "model to go on from: a folder or 'tiny'; a size's name is enough for a dry run"}
    )
    dtype: Dtype = field(default="float32", metadata={"help": "of frozen weights; bfloat16 for LoRA on large models"})
    lora_r: int = field(default=LORA_R, metadata={"help": "rank of the adapter (published 64)"})
    lora_alpha: int = field(default=LORA_ALPHA, metadata={"help": "scale is lora_alpha / lora_r (published 16)"})
    lora_dropout: float = field(default=LORA_DROPOUT, metadata={"help": "published 0.05"})
    lora_target_modules: list[str] = field(
        default_factory=lambda: list(LORA_TARGET_MODULES), metadata={"help": "name endings of the adapted layers"}
    )

    def check_adapter(self, trainable: str) -> None:
        """Raise ValueError for no model, settings without an adapter, or a precision that loses small updates."""
        if not self.model:
            raise ValueError("model is empty, so there is nothing to train: set --model to a model folder or 'tiny'.")
        if self.dtype != "float32" and trainable != "lora":
            raise ValueError(
                f"dtype {self.dtype} would lose small updates of the weights that train: use float32 (bf16 true makes "
                "the products bfloat16 all the same), or trainable: lora."
            )
        changed = self.changed_adapter_settings()
        if changed and trainable != "lora":
            name, value = next(iter(changed.items()))
            raise ValueError(
                f"{name} is {value!r}, but trainable {trainable!r} has no adapter, so it would be lost: leave it out "
                "(of the YAML as well), or use trainable: lora."
            )
        if self.lora_r < 1 or not 0 <= self.lora_dropout < 1:
            raise ValueError(
                f"lora_r {self.lora_r} and lora_dropout {self.lora_dropout} make no adapter: "
                "give a rank >= 1 and a dropout in [0, 1)."
            )

    def changed_adapter_settings(self) -> dict[str, Any]:
        """Return the `lora_*` settings that differ from their defaults."""
        return changed_settings(self, "lora_")


def changed_settings(settings: Any, prefix: str) -> dict[str, Any]:
    """Return the fields of a dataclass whose names begin with `prefix` and whose values differ from the defaults."""
    own = [one for one in fields(settings) if one.name.startswith(prefix)]
    defaults = {one.name: one.default if one.default_factory is MISSING else one.default_factory() for one in own}
    return {name: getattr(settings, name) for name, default in defaults.items() if getattr(settings, name) != default}
