"""The network gives the published numbers, and behaves as its docstring says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from model.javisdit.network.config import JointDiTConfig
from model.javisdit.network.positions import rotary_table
from model.javisdit.network.transformer import JointDiT
from tests.model.javisdit.golden import Golden, published_model
from tests.model.javisdit.small_model import SMALL, inputs, small_model

FILES = (
    "joint_dit",
    "joint_dit_vanilla",
    "joint_dit_interpolate",
    "joint_dit_interleave",
    "audio_only_dit",
    "video_only_dit",
)


@pytest.mark.parametrize("name", FILES)
def test_velocity_equals_the_published_networks(name):
    golden = Golden(f"model/{name}.safetensors")
    model = published_model(golden)
    for case, num_frames in enumerate(golden.metadata["num_frames"]):
        given = [golden.get(f"case{case}.{key}") for key in ("video", "audio", "timestep", "text", "text_mask")]
        with torch.no_grad():
            output = model(*given, num_frames=num_frames)
        for modality, velocity in output._asdict().items():
            expected = golden.get(f"case{case}.out_{modality}")
            if expected is None:
                assert velocity is None
            else:  # the release predicts data - noise
                assert (velocity + expected).abs().max() <= 1e-4 * expected.std()


def test_the_callers_tensors_are_left_alone():
    given = inputs()
    before = {name: tensor.clone() for name, tensor in given.items()}
    small_model()(**given)
    assert all(torch.equal(given[name], before[name]) for name in given)


def test_padded_text_is_zeroed_but_attended():
    model, given = small_model(), inputs()
    reference = model(**given)
    given["text"][0, 4:] = 7.0  # behind the mask
    assert torch.equal(model(**given).video, reference.video)
    shorter = given | {"text": given["text"][:, :4], "text_mask": given["text_mask"][:, :4]}
    assert not torch.allclose(model(**shorter).video[0], reference.video[0])


def test_one_modality_hears_the_other():
    model, given = small_model(), inputs()
    alone = model(**given | {"audio": None})
    assert alone.audio is None
    assert not torch.allclose(alone.video, model(**given).video, atol=1e-4)


def test_gradient_checkpointing_changes_nothing():
    gradients = []
    for checkpointing in (False, True):
        model = small_model().train()
        model.gradient_checkpointing = checkpointing
        sum(output.square().mean() for output in model(**inputs())).backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert all(torch.allclose(gradients[0][name], gradients[1][name], atol=1e-6) for name in gradients[0])


def test_experts_receive_gradients_of_their_own_modality_only():
    model = small_model().train()
    model.blocks[-1].requires_grad_(True)
    model(**inputs()).audio.square().mean().backward()
    last = model.blocks[-1]
    assert last.audio_ffn[0].weight.grad.abs().sum() > 0
    assert last.ffn[0].weight.grad is None or last.ffn[0].weight.grad.abs().sum() == 0


def test_shared_ffn_has_one_expert():
    config = replace(SMALL, ffn="shared")
    names = {name for name, _ in JointDiT(config).named_parameters()}
    assert not any("audio_ffn" in name or "audio_modulation" in name or "audio_time" in name for name in names)
    output = small_model(config)(**inputs())
    assert output.audio.shape == (2, 8, 8, 16)
    assert output.audio.std() > 0


def test_a_shared_ffn_serves_audio_alone_under_its_published_name():
    model = small_model(replace(SMALL, ffn="shared", modalities=("audio",)))
    assert "blocks.0.ffn.0.weight" in model.state_dict()
    assert model(**inputs() | {"video": None}, num_frames=9).audio.std() > 0


def test_bfloat16_weights_keep_time_and_heads_in_float32():
    """The output is float32, and its error is within the rounding of bfloat16 blocks."""
    model, given = small_model(), inputs()
    reference = model(**given)
    seen = {}
    for name in ("time_embedding.2", "time_projection.1", "audio_time_projection.1", "head.head"):
        model.get_submodule(name).register_forward_hook(lambda m, i, out, name=name: seen.update({name: out.dtype}))
    rounded = model.bfloat16()(**given)
    assert set(seen.values()) == {torch.float32}
    for name in ("video", "audio"):
        expected, got = getattr(reference, name), getattr(rounded, name)
        assert got.dtype == torch.float32
        assert 0 < (got - expected).abs().max() < 0.1 * expected.std()


def test_timesteps_are_rounded_to_the_dtype_of_the_weights():
    model, given = small_model().bfloat16(), inputs()
    given["timestep"] = torch.tensor([750.2, 997.3])
    rounded = model(**given | {"timestep": torch.tensor([752.0, 996.0])})  # docs/upstream/training.md, section 3
    assert torch.equal(model(**given).video, rounded.video)


@pytest.mark.parametrize("backend", ["auto", "flash", "math"])
def test_attention_backends_agree(backend):
    model, given = small_model(), inputs()
    reference = model(**given)
    model.set_attention_backend(backend)
    assert torch.allclose(model(**given).video, reference.video, atol=1e-5)


def test_an_unknown_attention_backend_is_refused():
    with pytest.raises(ValueError, match="auto, flash, cudnn, efficient, math"):
        small_model().set_attention_backend("flash_attention_2")


def test_compiled_blocks_give_the_same_numbers_under_the_same_names():
    model, given = small_model(), inputs()
    names, reference = list(model.state_dict()), model(**given)
    model.compile_blocks(backend="aot_eager", fullgraph=True)  # traced whole, without a C++ compiler
    compiled = model(**given)
    assert list(model.state_dict()) == names
    assert torch.allclose(compiled.video, reference.video, atol=1e-6)
    sum(output.square().mean() for output in model.train()(**given)).backward()
    assert model.blocks[0].audio_ffn[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(("num_frames", "steps"), [(33, 9), (9, 3), (12, 3), (100, 25)])
def test_audio_alone_sits_on_the_timeline_of_its_clip(num_frames, steps):
    """The timeline has one latent step, then one per 4 frames: (F - 1) // 4 + 1 for any F, as in the release."""
    model, given = small_model(), inputs()
    alone = model(**given | {"video": None}, num_frames=num_frames)
    rotary = rotary_table("ta_rope", None, (4, 8), (steps, 0, 0), SMALL.head_dim)
    assert all(map(torch.equal, model._rotary({"audio": (4, 8)}, num_frames, torch.device("cpu")), rotary))
    assert alone.video is None


def test_saved_and_loaded_weights_are_the_same(tmp_path):
    model = small_model()
    model.save_pretrained(tmp_path)
    loaded = JointDiT.from_pretrained(tmp_path)
    assert loaded.config == model.config
    assert torch.equal(loaded(**inputs()).audio, model(**inputs()).audio)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video": None, "audio": None}, "no modality"),
        ({"video": torch.zeros(2, 4, 3, 4, 6)}, "4 channels"),
        ({"video": torch.zeros(2, 16, 3, 5, 6)}, "do not split into patches"),
        ({"video": None}, "num_frames"),
    ],
)
def test_wrong_inputs_say_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        small_model()(**inputs() | change)


def test_unknown_config_keys_are_refused():
    with pytest.raises(ValueError, match="num_layer'"):
        JointDiTConfig.from_dict({"num_layer": 3})
