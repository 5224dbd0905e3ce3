"""Identity of reward weights: it changes with every file that affects scores, and with no other file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.score.settings import RewardConfig, choose_rewards
from rewards.imagebind.tokenizer import VOCABULARY

STEP = "VideoReward/checkpoint-7"


def identity(reward: str, weights: Path) -> str:
    found = choose_rewards(RewardConfig(rewards=[reward], reward_weights=str(weights)))[reward].weights
    assert found is not None
    return found


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def changes(reward: str, weights: Path, file: Path) -> bool:
    """Return whether a new file, and then a change of it, alters the identity of the weights."""
    seen = [identity(reward, weights)]
    for text in ("new", "altered"):
        write(file, text)
        seen.append(identity(reward, weights))
    assert len(set(seen)) in (1, 3)
    return len(set(seen)) == 3


@pytest.mark.parametrize("given", ["", "imagebind_huge.pth"])
@pytest.mark.parametrize("name", [VOCABULARY, "tokenizer.json", "tokenizer/tokenizer.json", "config.json"])
def test_the_tokenizer_beside_imagebinds_weights_counts(tmp_path, given, name):
    write(tmp_path / "imagebind_huge.pth", "weights")
    assert changes("imagebind", tmp_path / given, tmp_path / name)


@pytest.mark.parametrize("name", ["synchformer_state_dict.pth", "notes.txt", ".cache/imagebind"])
def test_other_files_beside_the_weights_do_not_count(tmp_path, name):
    write(tmp_path / "imagebind_huge.pth", "weights")
    assert not changes("imagebind", tmp_path, tmp_path / name)


@pytest.mark.parametrize("given", ["", "VideoReward", STEP, f"{STEP}/model.pth"])
@pytest.mark.parametrize(
    "name",
    [
        f"{STEP}/model.pth",
        f"{STEP}/tokenizer/tokenizer.json",
        "VideoReward/model_config.json",
        "VideoReward/config.json",
        "VideoReward/prompt_template.txt",
    ],
)
def test_settings_and_texts_of_videoalign_count_for_any_path_in_the_folder(tmp_path, given, name):
    write(tmp_path / STEP / "model.pth", "weights")
    assert changes("videoalign", tmp_path / given, tmp_path / name)


@pytest.mark.parametrize("given", ["", STEP])
def test_the_cache_of_a_download_does_not_count(tmp_path, given):
    write(tmp_path / STEP / "model.pth", "weights")
    for name in ("VideoReward/.cache/huggingface/download/model.metadata", f"{STEP}/.model.pth.lock"):
        assert not changes("videoalign", tmp_path / given, tmp_path / name)


def test_a_hidden_folder_may_hold_the_weights_themselves(tmp_path):
    root = tmp_path / ".cache" / "weights"
    write(root / STEP / "model.pth", "weights")
    assert changes("videoalign", root, root / STEP / "model.pth")


def test_identifying_weights_loads_no_network(tmp_path):
    write(tmp_path / "imagebind_huge.pth", "weights")
    write(tmp_path / STEP / "model.pth", "weights")
    program = (
        "import sys; from pipeline.score.settings import *;"
        f"choose_rewards(RewardConfig(rewards=['imagebind', 'videoalign'], reward_weights={str(tmp_path)!r}));"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
