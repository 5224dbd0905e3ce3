"""Each stage trains exactly the published parameters: those get gradients, and no others."""

from __future__ import annotations

import re

import pytest
import torch
from peft import get_peft_model

from model.javisdit.network.config import SIZES
from model.javisdit.network.transformer import JointDiT
from model.train.freezing import freeze_for_audio_stage
from tests.model.javisdit.small_model import SMALL, inputs, published_adapter, small_model

ADAPTED = re.compile(r"\.((self|cross)_attn\.[qkvo]|(audio_)?ffn\.[02])\.lora_[AB]\.")


def trained_names(model: torch.nn.Module) -> set[str]:
    """Parameters that get a gradient that is not zero from a joint loss."""
    output = model.train()(**inputs())
    (output.video.square().mean() + output.audio.square().mean()).backward()
    return {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


def test_stage_1_trains_the_audio_part_alone():
    model = small_model()
    wanted = set(freeze_for_audio_stage(model))
    assert trained_names(model) == wanted
    assert all("audio" in name for name in wanted)
    assert {name for name in model.state_dict() if "audio" in name} == wanted


def test_stage_1_of_the_published_size_trains_the_published_number():
    model = JointDiT.on_meta(SIZES["javisdit_pp"])
    assert len(freeze_for_audio_stage(model)) == 157
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 833_392_160


def test_stages_2_and_3_train_the_adapter_alone():
    model = small_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    adapted = get_peft_model(model, published_adapter())
    for module in adapted.modules():  # B starts at zero, and then A gets no gradient
        for layer in getattr(module, "lora_B", {}).values():
            torch.nn.init.normal_(layer.weight, std=0.1)
    wanted = {name for name, _ in adapted.named_parameters() if "lora_" in name}
    assert trained_names(adapted) == wanted
    assert len(wanted) == SMALL.num_layers * 12 * 2
    assert all(ADAPTED.search(name) for name in wanted)
    torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=1.0).step()
    base = {name.replace(".base_layer", ""): t for name, t in model.state_dict().items() if "lora_" not in name}
    assert all(torch.equal(base[name], before[name]) for name in before)


def test_the_adapter_of_the_published_size_has_the_published_number():
    config = published_adapter()
    assert (config.r, config.lora_alpha, config.lora_dropout, config.bias) == (64, 16, 0.05, "none")
    with torch.device("meta"):
        adapted = get_peft_model(JointDiT(SIZES["javisdit_pp"]), config)
    trained = [p for p in adapted.parameters() if p.requires_grad]
    assert (len(trained), sum(p.numel() for p in trained)) == (720, 127_795_200)


def test_a_model_without_audio_has_no_audio_stage():
    with pytest.raises(ValueError, match="no audio part"):
        freeze_for_audio_stage(JointDiT.on_meta(SIZES["wan21_t2v_1_3b"]))
