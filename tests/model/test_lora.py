"""Adapters are merged with the same result as by peft, and refused unless they fit the network exactly."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from model.lora import merge_lora
from tests.model.javisdit.small_model import same_weights, small_adapter, small_model

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def adapter(tmp_path) -> Path:
    small_adapter(small_model()).save_pretrained(str(tmp_path))
    return tmp_path


def change(adapter: Path, edit) -> None:
    save_file(edit(load_file(adapter / WEIGHTS)), adapter / WEIGHTS)


def configure(adapter: Path, **settings) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | settings), encoding="utf-8")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merged_weights_are_those_of_peft(tmp_path, dtype):
    adapted = small_adapter(small_model().to(dtype))
    adapted.save_pretrained(str(tmp_path))
    model = small_model().to(dtype)
    merge_lora(model, tmp_path)
    assert same_weights(model, adapted.merge_and_unload())
    assert not same_weights(model, small_model().to(dtype))


def test_targets_given_as_an_expression_are_merged(tmp_path):
    config = LoraConfig(r=2, lora_alpha=8, target_modules=r".*self_attn\.q", init_lora_weights=False)
    adapted = get_peft_model(small_model(), config)
    adapted.save_pretrained(str(tmp_path))
    model = small_model()
    merge_lora(model, tmp_path)
    assert same_weights(model, adapted.merge_and_unload())


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda state: {n.replace("base_model.model.", "base_model.model.module."): t for n, t in state.items()},
            "missing",
        ),
        (lambda state: {name: t for name, t in state.items() if "lora_A" in name}, "48? missing .*lora_B"),
        (
            lambda state: state | {"base_model.model.blocks.7.self_attn.q.lora_A.weight": torch.zeros(64, 48)},
            "1 surplus",
        ),
        (lambda state: {name: t[:3] if "lora_A" in name else t for name, t in state.items()}, "misshapen"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(adapter, edit, message):
    change(adapter, edit)
    model = small_model()
    with pytest.raises(ValueError, match=message):
        merge_lora(model, adapter)
    assert same_weights(model, small_model())  # and nothing was merged


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["self_attn.q"]},
        {"use_rslora": True},
        {"peft_type": "LOHA"},
        {"rank_pattern": {"q": 4}},
        {"bias": "all"},
    ],
)
def test_settings_that_change_the_update_are_refused(adapter, settings):
    configure(adapter, **settings)
    with pytest.raises(ValueError, match=r"surplus|only plain LoRA"):
        merge_lora(small_model(), adapter)


class Exploit:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_malicious_adapter_is_refused_and_not_run(adapter):
    state = load_file(adapter / WEIGHTS)
    (adapter / WEIGHTS).unlink()
    torch.save(state | {"extra": Exploit(adapter / "owned")}, adapter / "adapter_model.bin")
    with pytest.raises(ValueError, match="could run code"):
        merge_lora(small_model(), adapter)
    assert not (adapter / "owned").exists()
