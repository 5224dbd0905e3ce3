"""Reading weights: every layout, no code from pickles, little memory; and errors that say what a file is."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from core.state_files import StateFiles, fill_module, write_shards
from model.javisdit.network.config import JointDiTConfig
from model.javisdit.network.transformer import JointDiT
from tests.model.javisdit.golden import ROOT
from tests.model.javisdit.small_model import same_weights, small_adapter, small_model


class Exploit:
    """Unpickled by an unrestricted reader, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def load(path: Path, model: JointDiT) -> JointDiT:
    loaded = JointDiT.on_meta(model.config)
    fill_module(loaded, StateFiles(path).tensors(), str(path))
    return loaded


def write_safetensors_shards(state: dict[str, torch.Tensor], folder: Path) -> None:
    names = sorted(state)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file_name = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: state[name].contiguous() for name in part}, folder / file_name)
        weight_map |= dict.fromkeys(part, file_name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")


@pytest.mark.parametrize("layout", ["safetensors", "pth", "legacy", "bin shards", "safetensors shards"])
def test_every_layout_gives_the_same_weights(tmp_path, layout):
    model = small_model()
    state, path = model.state_dict(), tmp_path
    if layout == "safetensors":
        save_file(state, tmp_path / "model.safetensors")
    elif layout == "pth":
        torch.save(state, path := tmp_path / "model.pth")
    elif layout == "legacy":
        torch.save(state, path := tmp_path / "model.pt", _use_new_zipfile_serialization=False)
    elif layout == "bin shards":
        write_shards(state, tmp_path, None, shard_bytes=50_000)
        assert len(list(tmp_path.glob("pytorch_model-*.bin"))) > 2
    else:
        write_safetensors_shards(state, tmp_path)
    assert same_weights(load(path, model), model)
    assert StateFiles(path).shapes == {name: tuple(tensor.shape) for name, tensor in state.items()}


def test_shards_are_named_and_indexed_as_in_the_release(tmp_path):
    state = {f"layer.{i}": torch.zeros(1000) for i in range(5)}
    write_shards(state, tmp_path, torch.bfloat16, shard_bytes=4000)
    index = json.loads((tmp_path / "pytorch_model.bin.index.json").read_text(encoding="utf-8"))
    assert index["metadata"]["total_size"] == 5 * 1000 * 2
    assert sorted(set(index["weight_map"].values())) == [f"pytorch_model-{i:05d}.bin" for i in (1, 2, 3)]
    assert all(tensor.dtype == torch.bfloat16 for _, tensor in StateFiles(tmp_path).tensors())


@pytest.mark.parametrize("writer", ["torch", "legacy torch", "pickle"])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, writer):
    target, path = tmp_path / "owned", tmp_path / "pytorch_model.bin"
    content = {"weight": torch.zeros(2), "extra": Exploit(target)}
    if writer == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=writer == "torch")
    with pytest.raises(ValueError, match="could run code when read"):
        list(StateFiles(path).tensors())
    assert not target.exists()


def test_a_torn_file_and_a_missing_shard_are_named(tmp_path):
    write_shards({"a": torch.zeros(100), "b": torch.zeros(100)}, tmp_path, None, shard_bytes=400)
    (tmp_path / "pytorch_model-00002.bin").unlink()
    with pytest.raises(ValueError, match=r"pytorch_model-00002.bin is missing"):
        StateFiles(tmp_path)
    torn = tmp_path / "torn.safetensors"
    save_file({"a": torch.zeros(100)}, torn)
    torn.write_bytes(torn.read_bytes()[:-9])
    with pytest.raises(ValueError, match="is no whole safetensors file"):
        list(StateFiles(torn).tensors())


def test_a_folder_without_weights_and_a_file_without_tensors_are_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no weights"):
        StateFiles(tmp_path)
    torch.save({"state_dict": {"a": torch.zeros(1)}}, tmp_path / "nested.pth")
    with pytest.raises(ValueError, match="no plain dictionary of named tensors"):
        list(StateFiles(tmp_path / "nested.pth").tensors())


def test_two_checkpoints_in_one_folder_are_not_mixed(tmp_path):
    for name in ("model.safetensors", "model_old.safetensors"):
        save_file({"weight": torch.zeros(1)}, tmp_path / name)
    with pytest.raises(ValueError, match="both hold weight"):
        list(StateFiles(tmp_path).tensors())
    (tmp_path / "model.safetensors.index.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="names no shards"):
        StateFiles(tmp_path)


def test_faults_are_counted_named_and_explained():
    model = small_model()
    state = model.state_dict() | {"extra": torch.zeros(1), "norm3.weight": torch.zeros(1)}
    del state["head.head.bias"]
    state["head.modulation"] = torch.zeros(1, 2, 7)
    with pytest.raises(ValueError) as caught:
        fill_module(JointDiT.on_meta(model.config), state.items(), "here.pth")
    message = str(caught.value)
    assert message.startswith("here.pth does not fit JointDiT: 1 missing (head.head.bias)")
    assert "2 surplus (extra, norm3.weight)" in message
    assert "1 misshapen (head.modulation is (1, 2, 7), not (1, 2, 48))" in message
    assert "a joint JavisDiT model with MS-MoE blocks" in message


PEAK = """
import sys, torch
from model.javisdit.weights.checkpoints import load_javisdit, load_wan
from model.javisdit.network.config import JointDiTConfig
from model.javisdit.network.transformer import JointDiT

def kib(key):
    with open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith(key)).split()[1])

config = JointDiTConfig(dim=512, num_heads=4, ffn_dim=2048, num_layers=32)
torch.zeros(2048, 64) @ torch.zeros(64, 512)  # the matrix library's own buffers
JointDiT.on_meta(config)
before = kib("VmRSS")
with open("/proc/self/clear_refs", "w") as reset: # the peak from here on
    reset.write("5")
model = load_wan(sys.argv[1], config, torch.bfloat16) if sys.argv[2] == "wan" else load_javisdit(sys.argv[1], config)
size = sum(p.nbytes for p in model.parameters()) / 1024
print((kib("VmHWM") - before) / size)
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="reads Linux's peak memory")
@pytest.mark.parametrize("layout", ["one safetensors file", "one torch file", "torch shards", "shards and lora", "wan"])
def test_loading_needs_little_more_memory_than_the_model(tmp_path, layout):
    config = JointDiTConfig(dim=512, num_heads=4, ffn_dim=2048, num_layers=32)
    model = JointDiT(replace(config, modalities=("video",)) if layout == "wan" else config).bfloat16()
    weights = tmp_path / "model"
    weights.mkdir()
    if layout == "one torch file":
        torch.save(model.state_dict(), weights / "model.pth")
    elif layout in ("torch shards", "shards and lora"):
        write_shards(model.state_dict(), weights, None, shard_bytes=100 * 2**20)
    else:
        save_file(model.state_dict(), weights / "model.safetensors")
    if layout == "shards and lora":
        small_adapter(model).save_pretrained(str(tmp_path / "lora"), safe_serialization=False)
    path = weights if layout == "wan" else tmp_path
    command = [sys.executable, "-c", PEAK, str(path), layout]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    assert 0.9 < float(ran.stdout) <= 1.2, ran.stdout
