"""Public names of the packages: each is there, is documented, and costs nothing until it is used."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("media", "model", "rewards", "dpo", "evaluation", "pipeline", "synthetic")
PROMISED = {
    "media": {"AVClip", "read_clip", "write_clip"},
    "model": {
        *("JointAVPipeline", "JointDiT", "JointDiTConfig", "from_published", "load_javisdit", "load_wan"),
        *("audio_position_ids", "video_position_ids"),
    },
    "rewards": {"Prompt", "Reward", "RewardSuite"},
    "dpo": {"AVDPOConfig", "AVDPOTrainer", "av_dpo_loss"},
    "evaluation": {"compare_models", "evaluate"},
    "pipeline": {
        *("rank_pairs", "read_prompts", "read_javisdit_pairs", "read_javisdit_rewards", "write_javisdit_pairs"),
    },
}
NAMES = [(name, public) for name in PACKAGES for public in importlib.import_module(name).__all__]


@pytest.mark.parametrize(("package", "names"), PROMISED.items())
def test_promised_names_are_public(package, names):
    assert names <= set(importlib.import_module(package).__all__)


@pytest.mark.parametrize(("package", "name"), NAMES)
def test_public_name_is_listed_and_documented(package, name):
    module = importlib.import_module(package)
    assert name in dir(module)
    found = getattr(module, name)
    if callable(found):
        assert len(inspect.getdoc(found) or "") > 20
        assert not (inspect.getdoc(found) or "").startswith(f"{name}(")  # what dataclasses write by themselves


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'model' has no attribute 'JointDit'"):
        _ = importlib.import_module("model").JointDit


def test_comparison_is_a_function_and_a_command():
    from evaluation import compare, compare_models

    assert compare.compare_models is compare_models
    importlib.import_module("evaluation.compare.command")
    assert importlib.import_module("evaluation").compare is compare


def test_importing_all_packages_imports_nothing_heavy():
    check = f"import sys, {', '.join(PACKAGES)}; print({{'torch', 'ray', 'pandas'}} & set(sys.modules))"
    process = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "set()"
