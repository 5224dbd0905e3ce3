from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

from evaluation.judges.clip_score import ClipJudge, frame_indices
from media import AVClip, read_clip, write_clip
from media.clip import empty_audio
from synthetic.render import render_clip
from synthetic.scene import scene_from_seed
from tests.evaluation.judges.reduced_contrastive import TEXTS, prompt, sounding_clip, write_clip_model
from tests.golden_files import golden_path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_clip_model(tmp_path_factory.mktemp("weights") / "clip-vit-base-patch32")


@pytest.fixture(scope="module")
def clip_judge(folder):
    return ClipJudge.load(str(folder.parent))


def picture_clip(video):
    return AVClip(np.ascontiguousarray(video), 16.0, empty_audio(), 0)


def score(judge, clip, text=TEXTS[0]):
    return judge.measure([clip], [prompt(text)])["clip_score"][0].item()


def test_naming_the_judge_imports_no_torch():
    code = "import sys, evaluation.judges.clip_score; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_frames_are_the_published_ones():
    golden = json.loads(golden_path("media/frame_indices.json").read_text(encoding="utf-8"))
    cases = {int(key.split("->")[0]): indices for key, indices in golden.items() if key.endswith("->48")}
    assert cases
    for num_frames, indices in cases.items():
        assert frame_indices(num_frames).tolist() == indices


@pytest.mark.parametrize("num_frames", [1, 33, 60])
def test_the_score_is_the_mean_cosine_that_transformers_computes(folder, clip_judge, num_frames):
    video = np.random.default_rng(0).integers(0, 256, (num_frames, 40, 52, 3), dtype=np.uint8)
    processor = CLIPProcessor(CLIPImageProcessor.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder))
    inputs = processor(text=["a red ball falls."], images=list(video[frame_indices(num_frames)]), return_tensors="pt")
    with torch.inference_mode():
        outputs = CLIPModel.from_pretrained(folder).eval()(**inputs)
    expected = (outputs.image_embeds @ outputs.text_embeds.T).mean().item()
    assert score(clip_judge, picture_clip(video)) == pytest.approx(expected, abs=1e-6)


def test_javisbench_sees_red_and_blue_swapped(folder, clip_judge):
    red = np.zeros((5, 32, 32, 3), dtype=np.uint8)
    red[..., 0] = 255
    released = ClipJudge.load(str(folder), protocol="javisbench")
    assert score(released, picture_clip(red)) == score(clip_judge, picture_clip(red[..., ::-1]))
    assert score(released, picture_clip(red)) != pytest.approx(score(clip_judge, picture_clip(red)), abs=1e-4)
    assert released.version == "1+javisbench"


def test_only_the_frames_asked_for_count(clip_judge):
    clip = picture_clip(np.random.default_rng(1).integers(0, 256, (97, 32, 32, 3), dtype=np.uint8))
    chosen = sorted(clip_judge.frames(clip.num_frames, clip.fps))
    black = np.zeros_like(clip.video)
    black[chosen] = clip.video[chosen]
    assert len(chosen) == 48
    assert score(clip_judge, picture_clip(black)) == score(clip_judge, clip)


def test_a_score_depends_on_its_own_clip_and_prompt_only(clip_judge):
    clips = [sounding_clip(seed=seed, seconds=1 + seed) for seed in range(3)]
    together = clip_judge.measure(clips, [prompt(text) for text in TEXTS])["clip_score"]
    assert together.dtype == torch.float32
    assert together.tolist() == [score(clip_judge, *pair) for pair in zip(clips, TEXTS, strict=True)]


def test_a_text_is_mended_and_cut_as_by_openai(clip_judge):
    clip = sounding_clip()
    assert score(clip_judge, clip, "  Thunder &amp;  RAIN ") == score(clip_judge, clip, "thunder & rain")
    long = "red ball " * 50
    assert score(clip_judge, clip, long) == score(clip_judge, clip, long + "blue")


def test_no_clips_give_no_scores(clip_judge):
    assert clip_judge.measure([], [])["clip_score"].shape == (0,)


def test_a_written_clip_has_a_score(clip_judge, tmp_path):
    write_clip(render_clip(scene_from_seed(3)), tmp_path / "sample.mp4")
    clip = read_clip(tmp_path / "sample.mp4")
    assert -1 <= score(clip_judge, clip) <= 1


def test_weights_that_are_absent_or_not_whole_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="needs weights"):
        ClipJudge.load()
    with pytest.raises(ValueError, match="do not exist"):
        ClipJudge.load(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"lacks config.json, .*tokenizer.json.*openai/clip-vit-base-patch32"):
        ClipJudge.load(str(tmp_path))
    with pytest.raises(ValueError, match="is a file"):
        ClipJudge.load(str(folder / "model.safetensors"))


@pytest.mark.parametrize("fault", ["missing", "misshapen", "truncated"])
def test_weights_that_do_not_fit_are_refused(tmp_path, fault):
    folder = write_clip_model(tmp_path / "clip")
    weights = folder / "model.safetensors"
    state = load_file(weights)
    if fault == "missing":
        del state["visual_projection.weight"]
    state["text_projection.weight"] = torch.zeros(3, 3) if fault == "misshapen" else state["text_projection.weight"]
    save_file(state, weights, metadata={"format": "pt"})
    if fault == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    expected = {"missing": "visual_projection", "misshapen": "text_projection", "truncated": "cannot be read"}[fault]
    with pytest.raises(ValueError, match=expected):
        ClipJudge.load(str(folder))
