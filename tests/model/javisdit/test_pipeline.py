"""`JointAVPipeline` on the shipped preset: reproducible with any batching, loadable folders, helpful errors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from media import AVClip
from model import AVLatents, JointAVPipeline
from synthetic.captions import caption
from synthetic.scene import HELD_OUT_SEED_START, scene_from_seed

STEPS = {"num_inference_steps": 2}
PROMPTS = [caption(scene_from_seed(HELD_OUT_SEED_START + i)) for i in range(3)]


@pytest.fixture(scope="module")
def tiny() -> Iterator[JointAVPipeline]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield JointAVPipeline.from_pretrained("tiny")
    torch.set_num_threads(before)


def test_clips_have_the_models_geometry(tiny):
    [clip] = tiny(PROMPTS[:1], seeds=[1], **STEPS)
    assert isinstance(clip, AVClip)
    assert clip.video.shape == (33, 64, 64, 3)
    assert clip.audio.shape == (1, 33_000)
    assert (clip.fps, clip.sample_rate) == (16.0, 16_000)


def test_a_clip_is_the_same_alone_and_in_company(tiny):
    together = tiny(PROMPTS, seeds=[5, 6, 7], **STEPS)
    [alone] = tiny(PROMPTS[1:2], seeds=[6], **STEPS)
    assert np.array_equal(together[1].video, alone.video)
    assert np.array_equal(together[1].audio, alone.audio)


def test_seed_prompt_and_guidance_each_matter(tiny):
    def latents(prompt: str = PROMPTS[0], seed: int = 1, **options: float) -> torch.Tensor:
        return tiny([prompt], seeds=[seed], output="latents", **STEPS, **options)[0].video

    reference = latents()
    assert torch.equal(reference, latents())
    for other in (latents(seed=2), latents(PROMPTS[1]), latents(guidance_scale=1.0), latents(shift_scale=1.0)):
        assert not torch.allclose(reference, other, atol=1e-3)


def test_latents_decode_to_the_clip_they_came_with(tiny, tmp_path):
    [(clip, latents)] = tiny(PROMPTS[:1], seeds=[3], output="both", **STEPS)
    latents.save(tmp_path / "0.safetensors")
    loaded = AVLatents.load(tmp_path / "0.safetensors")
    [decoded] = tiny.decode_latents([loaded])
    assert np.array_equal(decoded.video, clip.video)
    assert np.array_equal(decoded.audio, clip.audio)
    assert (loaded.num_frames, loaded.fps, loaded.num_samples) == (33, 16.0, 33_000)
    for _ in range(8):  # several metadata entries would be written in random order
        latents.save(tmp_path / "again.safetensors")
        assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "0.safetensors").read_bytes()


def test_text_padding_is_zero_and_rows_are_independent(tiny):
    both = tiny.encode_text([PROMPTS[0], "a ball"])
    alone = tiny.encode_text(["a ball"])
    assert torch.equal(both.embeds[1], alone.embeds[0])
    assert both.embeds[1][~both.mask[1]].abs().sum() == 0
    assert both.mask[1].sum() == len(both.trimmed()[1]) == 3  # two words and the end


def test_a_saved_pipeline_loads_with_the_same_identity(tiny, tmp_path):
    tiny.save_pretrained(tmp_path / "copy")
    loaded = JointAVPipeline.from_pretrained(tmp_path / "copy")
    assert loaded.model_id == tiny.model_id
    assert loaded.defaults == tiny.defaults
    assert torch.equal(
        loaded(PROMPTS[:1], seeds=[1], output="latents", **STEPS)[0].audio,
        tiny(PROMPTS[:1], seeds=[1], output="latents", **STEPS)[0].audio,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": [1, 2]}, "one seed per prompt"),
        ({"seeds": [1], "num_frames": 32}, "use 29"),
        ({"seeds": [1], "height": 60}, "multiples of 16"),
        ({"seeds": [1], "output": "clips"}, "'clip', 'latents' or 'both'"),
    ],
)
def test_wrong_requests_say_what_to_change(tiny, options, message):
    with pytest.raises(ValueError, match=message):
        tiny(PROMPTS[:1], **options)


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="neither a preset"):
        JointAVPipeline.from_pretrained(tmp_path)


def test_other_solvers_and_no_guidance_give_clips_of_the_same_prompt(tiny):
    def latents(**options: object) -> torch.Tensor:
        [result] = tiny(PROMPTS[:1], seeds=[1], num_inference_steps=4, output="latents", **options)
        return result.video

    euler = latents()
    for solver in ("unipc", "dpm++"):
        other = latents(solver=solver)
        assert 0 < (other - euler).abs().mean() < 0.5 * euler.abs().mean()
    unguided = latents(guidance_scale=1.0)
    assert torch.equal(unguided, latents(guidance_scale=1.0, negative_prompt="anything"))


def test_unknown_defaults_in_a_folder_are_named(tmp_path):
    (tmp_path / "pipeline.json").write_text('{"defaults": {"frames": 3}}', encoding="utf-8")
    with pytest.raises(ValueError, match="unknown defaults \\['frames'\\]"):
        JointAVPipeline.from_pretrained(tmp_path)


def test_a_published_size_without_weights_says_how_to_get_them():
    with pytest.raises(ValueError, match=r"python -m model\.fetch"):
        JointAVPipeline.from_pretrained("javisdit_pp")


def test_a_bare_prompt_and_a_size_of_zero_are_not_taken_for_something_else(tiny):
    with pytest.raises(ValueError, match="give a list of prompts"):
        tiny("a red ball", seeds=[0])
    for size in ({"num_frames": 0}, {"height": 0}):
        with pytest.raises(ValueError, match=r"0 frames|0x64"):
            tiny(PROMPTS[:1], seeds=[0], **size)


def test_seeds_may_be_numpys(tiny):
    plain, numpys = (tiny(PROMPTS[:1], seeds=[seed], output="latents", **STEPS)[0] for seed in (7, np.int64(7)))
    assert torch.equal(plain.video, numpys.video)
