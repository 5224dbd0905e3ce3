"""Published checkpoints load and save bitwise; other checkpoints are recognised and refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import WanTransformer3DModel
from peft import PeftModel
from safetensors.torch import save_file

from model.javisdit.network.config import JointDiTConfig
from model.javisdit.network.transformer import JointDiT
from model.javisdit.weights.checkpoints import from_published, load_javisdit, load_wan, published_config, save_published
from tests.model.javisdit.golden import Golden, published_model, published_state
from tests.model.javisdit.small_model import SMALL, inputs, same_weights, small_adapter, small_model

VIDEO_ONLY = replace(SMALL, modalities=("video",))
DIFFUSERS_SIZES = {
    "num_attention_heads": SMALL.num_heads,
    "attention_head_dim": SMALL.head_dim,
    "ffn_dim": SMALL.ffn_dim,
    "num_layers": SMALL.num_layers,
    "freq_dim": SMALL.freq_dim,
    "text_dim": SMALL.text_dim,
}


def write_release(folder: Path) -> tuple[JointDiT, PeftModel]:
    """Write a folder like that of the release's LoRA training; return the base, and the base with its adapter."""
    base = small_model().bfloat16()
    save_published(base, folder, shard_bytes=40_000)
    adapted = small_adapter(small_model().bfloat16())
    adapted.save_pretrained(str(folder / "lora"), safe_serialization=False)
    index_path = folder / "model" / "pytorch_model.bin.index.json"
    index = json.loads(index_path.read_text(encoding="utf-8"))
    lora = {n.removeprefix("base_model.model."): t for n, t in adapted.state_dict().items() if "lora_" in n}
    torch.save(lora, folder / "model" / "pytorch_model-00099.bin")  # unmerged copies, as the release leaves them
    index["weight_map"] |= dict.fromkeys(lora, "pytorch_model-00099.bin")
    index_path.write_text(json.dumps(index), encoding="utf-8")
    return base, adapted


def test_a_state_dict_is_copied_not_shared():
    golden = Golden("model/joint_dit.safetensors")
    state = published_state(golden)
    model = from_published(state, golden.metadata["config"])
    before = state["blocks.0.ffn.0.weight"].clone()
    model.blocks[0].ffn[0].weight.data.zero_()
    assert torch.equal(state["blocks.0.ffn.0.weight"], before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_layouts_come_back_bit_for_bit(tmp_path, dtype):
    model = published_model(Golden("model/joint_dit.safetensors")).to(dtype)
    save_published(model, tmp_path / "release", shard_bytes=300_000)
    published = load_javisdit(tmp_path / "release")
    published.save_pretrained(tmp_path / "own")
    own = JointDiT.from_pretrained(tmp_path / "own")
    assert own.config == published.config == model.config
    assert same_weights(own, model)
    assert same_weights(published, model)
    assert same_weights(load_javisdit(tmp_path / "own"), model)  # both readers accept both configurations


def test_the_release_layout_holds_the_releases_names_and_no_others(tmp_path):
    golden = Golden("model/joint_dit.safetensors")
    save_published(published_model(golden), tmp_path, torch.bfloat16, shard_bytes=300_000)
    index = json.loads((tmp_path / "model" / "pytorch_model.bin.index.json").read_text(encoding="utf-8"))
    assert set(index["weight_map"]) == set(published_state(golden))


def test_an_adapter_beside_the_weights_is_merged(tmp_path):
    base, adapted = write_release(tmp_path)
    merged = load_javisdit(tmp_path)
    assert same_weights(merged, adapted.merge_and_unload())  # bitwise equal to peft's merge
    assert not torch.equal(merged.blocks[1].audio_ffn[2].weight, base.blocks[1].audio_ffn[2].weight)
    assert same_weights(load_javisdit(tmp_path, with_lora=False), base)


def test_lora_tensors_without_their_scale_are_refused(tmp_path):
    base, _ = write_release(tmp_path)
    (tmp_path / "lora" / "adapter_config.json").unlink()
    with pytest.raises(ValueError, match="which gives their scale"):
        load_javisdit(tmp_path)
    assert same_weights(load_javisdit(tmp_path, with_lora=False), base)


def test_sizes_are_inferred_where_no_configuration_lies_beside_the_weights(tmp_path):
    config = JointDiTConfig(dim=256, ffn_dim=64, num_heads=2, num_layers=2, freq_dim=16, text_dim=24)
    save_published(JointDiT(config), tmp_path)
    (tmp_path / "model" / "config.json").unlink()
    assert published_config(tmp_path) == config
    save_published(small_model(), tmp_path / "odd")
    (tmp_path / "odd" / "model" / "config.json").unlink()
    with pytest.raises(ValueError, match="number of heads is unknown"):
        load_javisdit(tmp_path / "odd")
    assert load_javisdit(tmp_path / "odd", config=SMALL).config == SMALL


@pytest.mark.parametrize("naming", ["original", "diffusers"])
def test_wan_weights_predict_what_diffusers_predicts(tmp_path, naming):
    torch.manual_seed(0)
    reference = WanTransformer3DModel(**DIFFUSERS_SIZES, rope_max_seq_len=32).eval()
    torch.nn.init.normal_(reference.proj_out.weight, std=0.1)
    reference.save_pretrained(tmp_path / "diffusers")
    model = load_wan(tmp_path / "diffusers", VIDEO_ONLY)
    if naming == "original":
        save_file(model.state_dict(), tmp_path / "original.safetensors")
        model = load_wan(tmp_path / "original.safetensors", VIDEO_ONLY)
    given = inputs() | {"audio": None}
    text = given["text"] * given["text_mask"][..., None]
    with torch.no_grad():
        expected = reference(given["video"], given["timestep"], text, return_dict=False)[0]
        velocity = model(**given).video
    assert (velocity - expected).abs().max() <= 1e-4 * expected.std()
    assert published_config(tmp_path / "diffusers") == replace(VIDEO_ONLY, text_len=512)


def test_the_audio_part_starts_from_the_video_part(tmp_path):
    video = small_model(VIDEO_ONLY)
    torch.save(video.state_dict(), tmp_path / "wan.pth")
    model, block = load_wan(tmp_path / "wan.pth", SMALL), 1
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in video.state_dict().items())
    joint, first_row = model.blocks[block], 3
    assert torch.equal(joint.audio_ffn[0].weight, video.blocks[block].ffn[0].weight)
    assert torch.equal(joint.audio_modulation.param, video.blocks[block].modulation[:, first_row:])
    rows = slice(first_row * SMALL.dim, None)
    assert torch.equal(model.audio_time_projection[1].weight, video.time_projection[1].weight[rows])
    assert torch.equal(model.audio_time_projection[1].bias, video.time_projection[1].bias[rows])
    assert model.audio_head.head.weight.abs().sum() == 0
    assert model.audio_patch_embedding.weight.std() > 0
    joint.audio_ffn[0].weight.data.zero_()  # a copy, not the same tensor
    assert joint.ffn[0].weight.abs().sum() > 0


def test_the_new_audio_modules_depend_on_the_seed_alone(tmp_path):
    torch.save(small_model(VIDEO_ONLY).state_dict(), tmp_path / "wan.pth")
    first, second, other = (load_wan(tmp_path / "wan.pth", SMALL, seed=seed) for seed in (0, 0, 1))
    assert same_weights(first, second)
    assert not torch.equal(first.audio_patch_embedding.weight, other.audio_patch_embedding.weight)


def test_the_stage_1_model_takes_no_video_tensors_from_wan(tmp_path):
    torch.save(small_model(VIDEO_ONLY).state_dict(), tmp_path / "wan.pth")
    for ffn, expert in (("modality", "audio_ffn"), ("shared", "ffn")):
        model = load_wan(tmp_path / "wan.pth", replace(SMALL, ffn=ffn, modalities=("audio",)))
        video = small_model(VIDEO_ONLY).blocks[0].ffn[0].weight
        assert torch.equal(model.blocks[0].get_submodule(expert)[0].weight, video)
        assert not any(name.startswith(("patch_embedding", "head.")) for name in model.state_dict())
        assert model(**inputs() | {"video": None}, num_frames=9).audio.shape == (2, 8, 8, 16)


def test_a_wan_checkpoint_of_another_size_is_still_called_one(tmp_path):
    torch.save(small_model(VIDEO_ONLY).state_dict(), tmp_path / "wan.pth")
    with pytest.raises(ValueError, match=r"misshapen .*looks like a Wan2.1 transformer"):
        load_wan(tmp_path / "wan.pth", replace(SMALL, ffn_dim=128))


def test_the_root_of_a_diffusers_pipeline_will_do(tmp_path):
    reference = WanTransformer3DModel(**DIFFUSERS_SIZES, rope_max_seq_len=32)
    reference.save_pretrained(tmp_path / "transformer")
    assert torch.equal(load_wan(tmp_path, SMALL).head.head.weight, reference.proj_out.weight)


def test_half_a_checkpoint_and_a_foreign_folder_are_refused(tmp_path):
    torch.save({"patch_embedding.weight": torch.zeros(4, 16, 1, 2, 2)}, tmp_path / "model.pth")
    with pytest.raises(ValueError, match=r"no complete Wan2\.1 or JavisDiT transformer"):
        published_config(tmp_path)
    with pytest.raises(ValueError, match="give a folder that save_pretrained wrote"):
        JointDiT.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["base_model.model.blocks.0.self_attn.q.lora_A.weight"], "a LoRA adapter in peft layout"),
        (["blocks.0.pos_embedding.embedding.weight"], "original UMT5 text encoder"),
        (["encoder.downsamples.0.residual.0.gamma"], "original video autoencoder"),
        (["audio_patch_embedding.weight"], "audio-only .stage 1."),
        (["first", "second"], "no known kind"),
    ],
)
def test_foreign_checkpoints_are_called_by_their_kind(tmp_path, names, kind):
    torch.save({name: torch.zeros(1) for name in names}, tmp_path / "model.pth")
    with pytest.raises(ValueError, match=kind):
        load_wan(tmp_path / "model.pth", SMALL)
    with pytest.raises(ValueError, match=kind):
        from_published({name: torch.zeros(1) for name in names}, SMALL.to_published())
