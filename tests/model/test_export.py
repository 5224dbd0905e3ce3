"""`python -m model.export`: the exported model equals the trained one, in either layout, locally and on the hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from core.lineage import LABELLED, UNTRAINED, read_lineage, write_lineage
from model.export.command import main
from model.javisdit.pipeline import JointAVPipeline
from model.javisdit.weights.checkpoints import load_javisdit
from model.javisdit.weights.folders import load_transformer
from model.lora import attach_adapter
from model.presets import preset_path
from model.train.joint_trainer import save_adapter
from tests.small_latents import small_network


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """Return the folder of an adapter on an adapter on a network, as written by preference training after stage 2."""
    root = tmp_path_factory.mktemp("models")
    small_network().save_pretrained(root / "base" / "transformer")
    parts = {name: str(preset_path("tiny") / name) for name in ("video_codec", "audio_codec", "text_encoder")}
    (root / "base" / "pipeline.json").write_text(json.dumps({"components": parts, "defaults": {"num_frames": 9}}))
    for name, base in (("sft", root / "base"), ("dpo", root / "sft")):
        settings = LoraConfig(r=2, target_modules=["q", "ffn.0"], base_model_name_or_path=str(base))
        adapted = attach_adapter(load_transformer(base), settings, seed=0)
        for parameter_name, parameter in adapted.named_parameters():
            if "lora_B" in parameter_name:
                torch.nn.init.normal_(parameter, std=0.1)
        save_adapter(adapted, root / name, None)
    (root / "dpo" / "config.yaml").write_text("beta_video: 3000.0\n")
    return root / "dpo"


def export(model, output, *flags):
    return main(["--model", str(model), "--output", str(output), *flags])


def assert_same(network, expected, atol=0.0):
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name].float(), tensor, rtol=0, atol=atol)


def test_merged_model_is_the_adapters_and_needs_none_of_their_folders_to_load(adapter, tmp_path):
    moved = shutil.copytree(adapter.parent, tmp_path / "models")
    for name in ("sft", "dpo"):
        path = moved / name / "adapter_config.json"
        path.write_text(path.read_text().replace(str(adapter.parent), str(moved)))
    assert export(moved / "dpo", tmp_path / "out") == 0
    expected = load_transformer(adapter)
    shutil.rmtree(moved / "dpo")
    shutil.rmtree(moved / "sft")
    assert_same(JointAVPipeline.from_pretrained(tmp_path / "out").transformer, expected)
    assert JointAVPipeline.from_pretrained(tmp_path / "out").defaults.num_frames == 9


def test_release_layout_is_a_model_here_and_has_the_releases_files(adapter, tmp_path):
    assert export(adapter, tmp_path / "out", "--layout", "release", "--dtype", "bfloat16") == 0
    assert sorted(path.name for path in (tmp_path / "out" / "model").iterdir()) == [
        "config.json",
        "pytorch_model-00001.bin",
        "pytorch_model.bin.index.json",
    ]
    stored = torch.load(tmp_path / "out" / "model" / "pytorch_model-00001.bin", weights_only=True)
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    expected = load_transformer(adapter)
    assert set(stored) == set(expected.state_dict())
    assert_same(load_javisdit(tmp_path / "out"), expected, atol=0.02)
    assert_same(JointAVPipeline.from_pretrained(tmp_path / "out").transformer, expected, atol=0.02)


@pytest.mark.parametrize("flags", [[], ["--layout", "release"], ["--layout", "release", "--merge", "false"]])
def test_lineage_goes_along(adapter, tmp_path, flags):
    model = shutil.copytree(adapter, tmp_path / "model")
    write_lineage(model, LABELLED)
    assert export(model, tmp_path / "out", *flags) == 0
    assert read_lineage(tmp_path / "out") == LABELLED


def test_unmerged_release_layout_keeps_base_and_adapter_apart(adapter, tmp_path):
    assert export(adapter, tmp_path / "out", "--layout", "release", "--merge", "false") == 0
    base, tuned = load_transformer(adapter.parent / "sft"), load_transformer(adapter)
    assert_same(load_javisdit(tmp_path / "out", with_lora=False), base)
    assert_same(load_javisdit(tmp_path / "out"), tuned)
    lora = torch.load(tmp_path / "out" / "lora" / "adapter_model.bin", weights_only=True)
    assert lora.keys() == load_file(adapter / "adapter_model.safetensors").keys()
    assert all(name.startswith("base_model.model.blocks.") for name in lora)


@pytest.mark.parametrize("flags", [[], ["--all_parts", "true"], ["--layout", "release", "--merge", "false"]])
def test_scaled_adapter_goes_on_in_its_direction_from_its_base(adapter, tmp_path, flags):
    assert export(adapter, tmp_path / "out", "--adapter_scale", "2.5", *flags) == 0
    base, tuned = (load_transformer(path).state_dict() for path in (adapter.parent / "sft", adapter))
    network = load_transformer(tmp_path / "out")
    for name, value in network.state_dict().items():
        expected = base[name] + 2.5 * (tuned[name] - base[name])
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-6)
    assert "adapter times 2.5" in (tmp_path / "out" / "README.md").read_text()


def test_checkpoint_of_a_run_and_the_releases_layout_are_adapters_too(adapter, tmp_path):
    """A checkpoint also contains averaged weights and optimiser state; the release uses torch's file format."""
    checkpoint = shutil.copytree(adapter, tmp_path / "checkpoint-1")
    tensors = load_file(adapter / "adapter_model.safetensors")
    save_file({f"{name}.average": tensor for name, tensor in tensors.items()}, checkpoint / "ema.safetensors")
    assert_same(load_transformer(checkpoint), load_transformer(adapter))
    (checkpoint / "adapter_model.safetensors").unlink()
    torch.save(tensors, checkpoint / "adapter_model.bin")
    assert export(checkpoint, tmp_path / "out", "--layout", "release", "--merge", "false") == 0
    assert_same(load_javisdit(tmp_path / "out"), load_transformer(adapter))


def test_folder_with_all_parts_stands_alone(tmp_path):
    assert export("tiny", tmp_path / "out", "--all_parts", "true") == 0
    settings = json.loads((tmp_path / "out" / "pipeline.json").read_text())
    assert "base" not in settings
    assert read_lineage(tmp_path / "out") == UNTRAINED
    pipeline = JointAVPipeline.from_pretrained(shutil.move(tmp_path / "out", tmp_path / "elsewhere"))
    assert pipeline.model_id == JointAVPipeline.from_pretrained("tiny").model_id
    assert pipeline.encode_text(["a red ball"]).embeds.shape[-1] == 64


def test_pushed_folder_has_a_card_with_the_settings_of_its_training(adapter, tmp_path, monkeypatch, capsys):
    calls = []

    class Hub:
        def create_repo(self, repo_id, **options):
            calls.append((repo_id, options))

        def upload_folder(self, *, repo_id, folder_path, **options):
            shutil.copytree(folder_path, tmp_path / "hub")

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    assert export(adapter, tmp_path / "out", "--push_to_hub", "me/model", "--private", "true") == 0
    assert calls == [("me/model", {"repo_type": "model", "private": True, "exist_ok": True})]
    card = (tmp_path / "hub" / "README.md").read_text()
    assert "beta_video: 3000.0" in card
    assert "JointAVPipeline.from_pretrained" in card
    assert str(tmp_path) not in card
    assert "pushed to me/model" in capsys.readouterr().out
    assert (tmp_path / "hub" / "transformer" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--layout", "release", "--all_parts", "true"], "turn all_parts off"),
        (["--merge", "false"], "use layout 'release'"),
        (["--push_to_hub", "model"], "owner/name"),
        (["--adapter_scale", "nan"], "a number above 0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit):
        export("tiny", tmp_path / "out", *flags)
    assert message in capsys.readouterr().err


def test_used_folders_and_models_that_are_none_are_refused(adapter, tmp_path, capsys):
    with pytest.raises(SystemExit):
        export("tiny", adapter)
    assert "is not empty" in capsys.readouterr().err
    assert export(tmp_path, tmp_path / "out") == 2
    assert "is no model" in capsys.readouterr().err
    assert export("tiny", tmp_path / "one", "--adapter_scale", "2") == 2
    assert "no adapter to scale" in capsys.readouterr().err
    assert export("tiny", Path(tmp_path / "two"), "--layout", "release", "--merge", "false") == 2
    assert "no adapter to keep separate" in capsys.readouterr().err
