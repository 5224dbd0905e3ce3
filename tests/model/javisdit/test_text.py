"""Prompts are cleaned and embedded as published, from either kind of file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import UMT5Config, UMT5EncoderModel

from model import preset_path
from model.javisdit.text import TextEmbeddings, TextEncoder, clean_prompt, load_umt5_original
from model.javisdit.weights.tensor_names import from_umt5_original
from tests.model.javisdit.golden import ROOT, Golden, golden_path, published_state

GOLDEN = "media/umt5_reduced.safetensors"
MANIFEST: Path = ROOT / "tests" / "golden" / "model" / "manifest_umt5xxl_upstream.json"


def test_cleaning_equals_the_published_one():
    pairs = json.loads(golden_path("media/text_cleaning.json").read_text(encoding="utf-8"))["pairs"]
    assert pairs
    for raw, cleaned in pairs:
        assert clean_prompt(raw) == cleaned


@pytest.mark.parametrize("layout", ["original", "transformers"])
def test_hidden_states_equal_the_published_encoders(tmp_path, layout):
    golden = Golden(GOLDEN)
    torch.save(published_state(golden), tmp_path / "umt5.pth")
    model = load_umt5_original(tmp_path / "umt5.pth")
    if layout == "transformers":
        model.save_pretrained(tmp_path)
        model = UMT5EncoderModel.from_pretrained(tmp_path)
    for case in (0, 1):
        with torch.no_grad():
            hidden = model(golden[f"case{case}.input_ids"], golden[f"case{case}.mask"]).last_hidden_state
        assert (hidden - golden[f"case{case}.hidden"]).abs().max() <= 2e-5


def test_the_original_encoder_has_one_embedding_under_two_names(tmp_path):
    torch.save(published_state(Golden(GOLDEN)), tmp_path / "umt5.pth")
    model = load_umt5_original(tmp_path / "umt5.pth", torch.bfloat16)
    assert model.shared.weight is model.encoder.embed_tokens.weight
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_the_published_encoder_has_the_published_tensors():
    manifest = json.loads(MANIFEST.read_text(encoding="utf-8"))
    sizes = manifest["config"]
    config = UMT5Config(
        vocab_size=sizes["vocab_size"],
        d_model=sizes["dim"],
        d_kv=sizes["head_dim"],
        d_ff=sizes["dim_ffn"],
        num_layers=sizes["num_layers"],
        num_heads=sizes["num_heads"],
        feed_forward_proj="gated-gelu",
    )
    with torch.device("meta"):
        encoder = UMT5EncoderModel(config).encoder
    renamed = {from_umt5_original(name): tuple(shape) for name, shape in manifest["tensors"].items()}
    assert {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()} == renamed
    assert sum(parameter.numel() for parameter in encoder.parameters()) == manifest["num_parameters"] == 5_680_910_336


def test_trimmed_embeddings_keep_real_tokens_alone():
    embeds, mask = torch.randn(2, 5, 3), torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1]]).bool()
    rows = TextEmbeddings(embeds, mask).trimmed()
    assert torch.equal(rows[0], embeds[0, :2])
    assert torch.equal(rows[1], embeds[1])


def test_foreign_files_and_missing_tokenizers_are_named(tmp_path):
    torch.save({"patch_embedding.weight": torch.zeros(1)}, tmp_path / "models_t5_umt5-xxl-enc-bf16.pth")
    with pytest.raises(ValueError, match=r"looks like a Wan2\.1 transformer"):
        TextEncoder.from_pretrained(tmp_path)
    torch.save(published_state(Golden(GOLDEN)), tmp_path / "models_t5_umt5-xxl-enc-bf16.pth")
    with pytest.raises(ValueError, match=r"umt5-xxl has no tokenizer_config\.json"):
        TextEncoder.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"neither config\.json"):
        TextEncoder.from_pretrained(tmp_path / "nowhere")


def test_a_transformers_folder_that_lacks_or_adds_tensors_is_refused(tmp_path):
    """transformers itself would continue with random numbers in place of missing tensors."""
    shutil.copytree(preset_path("tiny") / "text_encoder", tmp_path, dirs_exist_ok=True)
    state = load_file(tmp_path / "model.safetensors")
    name = "encoder.block.0.layer.1.DenseReluDense.wi_0.weight"
    save_file({key: t for key, t in state.items() if key != name}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=f"1 missing, such as {name}"):
        TextEncoder.from_pretrained(tmp_path)
    save_file(state | {"extra.weight": torch.zeros(1)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="1 surplus"):
        TextEncoder.from_pretrained(tmp_path)
