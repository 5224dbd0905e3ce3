"""The rule that makes weights from names gives the numbers that the golden files were made with."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from tests.golden_files import golden_path
from tests.rewards.procedural import fill, procedural_tensor


def test_tensors_are_those_of_the_probe():
    probe = json.loads(golden_path("synchformer_imagebind/procedural_probe.json").read_text(encoding="utf-8"))
    for name, wanted in probe["tensors"].items():
        tensor = procedural_tensor(name, wanted["shape"], probe["SEED"])
        numbers = tensor.flatten()
        assert numbers[:4].tolist() == pytest.approx(wanted["first"][: numbers.numel()], rel=1e-5), name
        assert numbers[-1].item() == pytest.approx(wanted["last"], rel=1e-5), name
        rounding = 1e-6 * wanted["abs_sum"]  # torch draws other last bits where it has no AVX2
        assert numbers.double().sum().item() == pytest.approx(wanted["sum"], rel=0, abs=rounding), name
        assert numbers.double().abs().sum().item() == pytest.approx(wanted["abs_sum"], rel=1e-5), name


def test_a_module_on_the_meta_device_is_filled_by_name():
    with torch.device("meta"):
        module = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    fill(module, seed=5)
    assert {name: tensor.tolist() for name, tensor in module.state_dict().items()} == {
        name: procedural_tensor(name, tensor.shape, 5).tolist() for name, tensor in module.state_dict().items()
    }
