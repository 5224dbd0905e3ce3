"""Training of the tiny preset: its parts, its three stages and its grades."""

from __future__ import annotations

import pytest
import torch

from model.javisdit.pipeline import GenerationDefaults, JointAVPipeline
from model.javisdit.weights.folders import load_transformer
from model.optimizers import Muon, orthogonalize
from synthetic.bootstrap.codecs import train_audio_codec
from synthetic.bootstrap.data import prepare_scenes
from synthetic.bootstrap.stages import train_stages
from synthetic.bootstrap.text import train_text_encoder
from synthetic.captions import PHRASINGS, caption
from synthetic.grade import Grade, GradeConfig, grade
from synthetic.scene import scene_from_seed


def test_orthogonalize_evens_out_singular_values():
    matrix = torch.randn(24, 60, generator=torch.Generator().manual_seed(0))
    for shaped in (matrix, matrix.T):
        values = torch.linalg.svdvals(orthogonalize(shaped))
        assert values.min() > 0.6
        assert values.max() < 1.3


def test_text_encoder_tells_captions_apart():
    torch.manual_seed(0)
    encoder = train_text_encoder(3)
    texts = [caption(scene_from_seed(1), phrasing) for phrasing in range(len(PHRASINGS))]
    embeddings = encoder(texts)
    assert embeddings.embeds.shape == (len(PHRASINGS), 40, 64)
    assert not embeddings.mask.all()  # a caption is shorter than the text length
    unknown = encoder.tokenizer("zeppelin", return_tensors="pt").input_ids[0, 0]
    assert unknown == encoder.tokenizer.unk_token_id


def test_codec_training_sets_the_latent_statistics():
    torch.manual_seed(0)
    codec = train_audio_codec(1)
    assert all(std != 1.0 for std in codec.config.latents_std)


def test_muon_moves_matrices_of_one_shape_alike_and_vectors_as_adam_does():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Linear(4, 6), torch.nn.Linear(6, 4))
    reference = torch.optim.AdamW([p for p in module.parameters() if p.ndim == 1], 0.1, (0.9, 0.98), weight_decay=0.0)
    optimizer = Muon(module, lr=0.1)
    before = [p.detach().clone() for p in module.parameters()]
    module(torch.randn(32, 6)).square().sum().backward()
    optimizer.step()
    after = [p.detach().clone() for p in module.parameters()]
    for parameter, value in zip(module.parameters(), before, strict=True):
        parameter.data.copy_(value)
    reference.step()
    for old, new, adam in zip(before, after, module.parameters(), strict=True):
        if old.ndim == 1:
            assert torch.allclose(new, adam, atol=1e-6)
        else:  # the first step uses the gradient itself, for each matrix separately
            step = -0.1 * 0.2 * 6**0.5 * orthogonalize(adam.grad)
            assert torch.cosine_similarity((new - old).flatten(), step.flatten(), dim=0) > 0.9  # in bfloat16


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """Return the work folder of a training with one or two steps per stage and the shipped codecs."""
    from model.javisdit.codecs.tiny import FrameGroupVideoCodec, MelAudioCodec
    from model.javisdit.text import TextEncoder
    from model.presets import preset_path

    work, preset = tmp_path_factory.mktemp("stages"), preset_path("tiny")
    for name in ("video_codec", "audio_codec", "text_encoder"):
        (work / name).symlink_to(preset / name)
    codecs = (
        FrameGroupVideoCodec.from_pretrained(preset / "video_codec"),
        MelAudioCodec.from_pretrained(preset / "audio_codec"),
    )
    encoder = TextEncoder.from_pretrained(preset / "text_encoder", 40)
    prepare_scenes(range(6), *codecs, encoder, "", work / "train")
    prepare_scenes(range(10, 12), *codecs, encoder, "", work / "held_out")
    shared = {"max_steps": 2, "per_device_train_batch_size": 2, "use_cpu": True, "disable_tqdm": True}
    shared |= {"learning_rate": 1e-2, "warmup_steps": 0, "save_steps": 1, "logging_steps": 1}
    defaults = GenerationDefaults(num_frames=33, height=64, width=64, num_inference_steps=2)
    own = {"backbone": {}, "stage1": {"ema_decay": 0.5}, "stage2": {}}
    train_stages(work, defaults, shared, own)
    return work, defaults, shared, own


def test_stage_1_changes_no_video_parameter_and_no_video_sample(stages):
    work = stages[0]
    before = load_transformer(work / "backbone" / "ema").state_dict()
    after = load_transformer(work / "stage1" / "ema")
    own = {name: tensor for name, tensor in after.state_dict().items() if "audio_" not in name}
    assert own.keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in own.items())
    samples = [
        JointAVPipeline.from_pretrained(work / stage / "ema")(
            ["a small red ball"], seeds=[3], modalities=("video",), output="latents"
        )[0]
        for stage in ("backbone", "stage1")
    ]
    assert torch.equal(samples[0].video, samples[1].video)
    assert samples[1].audio.numel() == 0


def test_stage_2_goes_on_from_stage_1_and_trains_everything(stages):
    work = stages[0]
    before, after = (load_transformer(work / stage).state_dict() for stage in ("stage1", "stage2"))
    assert before.keys() == after.keys()
    same = [name for name, tensor in after.items() if torch.equal(tensor, before[name])]
    assert not same


def test_finished_stages_are_not_trained_again_and_misspelt_settings_are_refused(stages):
    work, defaults, shared, own = stages
    stamps = {path: path.stat().st_mtime_ns for path in work.glob("*/summary.json")}
    assert len(stamps) == 3
    train_stages(work, defaults, shared, own)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    with pytest.raises(ValueError, match="nearest match is 'learning_rate'"):
        train_stages(work, defaults, {**shared, "learning_rat": 1.0}, own)


def test_ground_truth_is_graded_right():
    grades, offset = grade(GradeConfig(model="ground_truth", num_captions=6, num_workers=1))
    assert all(one.right == one.total for one in grades)
    assert offset is not None
    assert offset < 0.03


def test_the_interval_of_a_share_holds_it():
    grade = Grade("color", 60, 100)
    low, high = grade.interval
    assert low < 0.6 < high
    assert round(low, 3) == 0.502
    assert round(high, 3) == 0.691
