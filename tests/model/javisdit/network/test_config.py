"""Sizes by name are the published ones, and settings of the release translate both ways or are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from model.javisdit.network.config import SIZES, JointDiTConfig
from model.javisdit.network.transformer import JointDiT
from tests.model.javisdit.golden import ROOT

MANIFEST: Path = ROOT / "tests" / "golden" / "model" / "manifest_javisdit_v1_0_t2av.json"


@pytest.fixture(scope="module")
def manifest() -> dict:
    return json.loads(MANIFEST.read_text(encoding="utf-8"))


def test_the_published_size_has_the_published_tensors(manifest):
    model = JointDiT.on_meta(JointDiTConfig.from_preset("javisdit_pp"))
    assert {name: list(tensor.shape) for name, tensor in model.state_dict().items()} == manifest["tensors"]
    assert sum(parameter.numel() for parameter in model.parameters()) == manifest["num_parameters"] == 2_252_388_960


@pytest.mark.parametrize(
    ("name", "key"), [("wan21_t2v_1_3b", "active_per_video_token"), ("javisdit_pp_audio", "active_per_audio_token")]
)
def test_a_token_meets_as_many_parameters_as_published(manifest, name, key):
    """The network of one modality contains the parameters through which a token of that modality passes."""
    model = JointDiT.on_meta(SIZES[name])
    assert sum(parameter.numel() for parameter in model.parameters()) == manifest[key]
    assert set(model.state_dict()) < set(manifest["tensors"])


def test_the_releases_settings_give_the_published_size_and_come_back(manifest):
    config = JointDiTConfig.from_published(manifest["model_settings"])
    assert config == SIZES["javisdit_pp"]
    assert JointDiTConfig.from_published(config.to_published()) == config
    shared = replace(config, ffn="shared", audio_positions="interleave", modalities=("audio",))
    assert JointDiTConfig.from_published(shared.to_published()) == shared


def test_the_shipped_preset_has_a_size_too():
    assert JointDiTConfig.from_preset("tiny").dim < SIZES["javisdit_pp"].dim


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_layer": 30}, "num_layer'"),
        ({"model_type": "i2v"}, "t2av"),
        ({"audio_pe_type": "rope"}, "interleave_offset"),
        ({"audio_special_token": True}, "another network"),
        ({"window_size": [4, 4]}, "another network"),
        ({"out_dim": 8}, "differ"),
    ],
)
def test_settings_of_other_networks_are_refused(manifest, change, message):
    with pytest.raises(ValueError, match=message):
        JointDiTConfig.from_published(manifest["model_settings"] | change)


def test_settings_of_the_releases_training_and_loading_change_nothing(manifest):
    more = {"type": "Wan2_1_T2V_1_3B", "from_pretrained": "x", "weight_init_from": ["x"], "class_drop_prob": 0.1}
    assert JointDiTConfig.from_published(manifest["model_settings"] | more) == SIZES["javisdit_pp"]


@pytest.mark.parametrize("name", ["model_type", "dim", "num_heads", "dual_ffn"])
def test_settings_whose_published_default_is_another_models_must_be_said(manifest, name):
    settings = {key: value for key, value in manifest["model_settings"].items() if key != name}
    with pytest.raises(ValueError, match=f"lack \\['{name}'"):
        JointDiTConfig.from_published(settings)


@pytest.mark.parametrize("foreign", [{"image_dim": 1280, "num_attention_heads": 2, "attention_head_dim": 4}, {}])
def test_diffusers_configurations_that_do_not_fit_are_refused(foreign):
    with pytest.raises(ValueError, match=r"image-to-video|lacks"):
        JointDiTConfig.from_published({"_class_name": "WanTransformer3DModel"} | foreign)


@pytest.mark.parametrize(
    "change",
    [
        {"modalities": ("audio", "video")},  # tokens and positions would be in different orders
        {"modalities": ()},
        {"ffn": "modalty"},
        {"audio_positions": "rope"},
        {"num_heads": 7},
    ],
)
def test_configurations_that_build_nothing_sensible_are_refused(change):
    with pytest.raises(ValueError, match=r"must be one of|does not split"):
        JointDiTConfig(**change)


def test_an_unpublished_rule_has_no_published_name():
    with pytest.raises(ValueError, match="ta_rope_floor"):
        replace(SIZES["javisdit_pp"], audio_positions="ta_rope_floor").to_published()


def test_an_unknown_size_names_the_known_ones():
    with pytest.raises(ValueError, match="javisdit_pp, javisdit_pp_audio, wan21_t2v_1_3b, tiny"):
        JointDiTConfig.from_preset("javisdit")
