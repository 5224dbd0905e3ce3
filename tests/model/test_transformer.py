"""The network gives the published numbers, and behaves as its docstring says."""

import pytest
import torch
from golden import Golden, published_model

from model.transformer import JointDiT, JointDiTConfig

SMALL = JointDiTConfig(dim=48, ffn_dim=64, num_heads=2, num_layers=2, freq_dim=16, text_dim=24, text_len=6)
FILES = (
    "joint_dit",
    "joint_dit_vanilla",
    "joint_dit_interpolate",
    "joint_dit_interleave",
    "audio_only_dit",
    "video_only_dit",
)


def inputs(batch: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        "video": torch.randn(batch, 16, 3, 4, 6, generator=generator),
        "audio": torch.randn(batch, 8, 8, 16, generator=generator),
        "timestep": torch.tensor([10.0, 900.0][:batch]),
        "text": torch.randn(batch, 6, 24, generator=generator),
        "text_mask": torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]][:batch]).bool(),
    }


def small_model(config: JointDiTConfig = SMALL) -> JointDiT:
    torch.manual_seed(0)
    model = JointDiT(config).eval()
    for head in (model.head, model.audio_head):  # a fresh head is zero
        torch.nn.init.normal_(head.head.weight, std=0.1)
    return model


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
    config = JointDiTConfig(**{**SMALL.__dict__, "ffn": "shared"})
    names = {name for name, _ in JointDiT(config).named_parameters()}
    assert not any("audio_ffn" in name or "audio_modulation" in name or "audio_time" in name for name in names)
    assert small_model(config)(**inputs()).audio.shape == (2, 8, 8, 16)


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
