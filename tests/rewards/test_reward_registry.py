from __future__ import annotations

import sys
import textwrap
from importlib.metadata import EntryPoint

import numpy as np
import pytest

import rewards.registry as registry
from media import AVClip
from rewards import MissingPackageError, Prompt, Reward, available_rewards, expand_names, get_judge, get_reward

THIRD_PARTY = """
import torch
from rewards import Reward

class Brightness(Reward):
    name = "brightness"
    version = "1"
    columns = ("brightness",)
    higher_is_better = {"brightness": True}
    needs = frozenset({"video"})
    licence = "MIT"

    def score(self, clips, prompts):
        return {"brightness": torch.tensor([clip.video.mean() / 255 for clip in clips], dtype=torch.float32)}
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Write a module that can be imported for the length of a test."""

    def write(name, source):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, name, raising=False)
        return name

    return write


def install(monkeypatch, *points):
    entries = [EntryPoint(name=name, value=value, group=registry.ENTRY_POINT_GROUP) for name, value in points]
    monkeypatch.setattr(registry, "entry_points", lambda group: entries)


@pytest.mark.parametrize("name", ["verifiable", "Verifiable", " VERIFIABLE "])
def test_names_are_normalised(name):
    assert get_reward(name).name == "verifiable"


def test_a_third_party_reward_loads_by_dotted_path(plugin):
    assert len(THIRD_PARTY.strip().splitlines()) <= 30
    reward = get_reward(f"{plugin('acme_rewards', THIRD_PARTY)}:Brightness").load()
    assert isinstance(reward, Reward)
    clip = AVClip(np.full((2, 4, 4, 3), 51, np.uint8), 16.0, np.zeros((0, 0), np.float32), 0)
    assert reward.score([clip], [Prompt("p", "anything")])["brightness"].tolist() == pytest.approx([0.2])


def test_an_entry_point_is_found_under_any_spelling(plugin, monkeypatch):
    install(monkeypatch, ("Acme-Brightness", f"{plugin('acme_rewards', THIRD_PARTY)}:Brightness"))
    assert get_reward("acme_brightness") is get_reward("ACME-Brightness")
    assert "acme_brightness" in available_rewards()


@pytest.mark.parametrize("points", [[("Verifiable", "a:B")], [("my-reward", "a:B"), ("My_Reward", "c:D")]])
def test_two_rewards_of_one_name_are_an_error(monkeypatch, points):
    install(monkeypatch, *points)
    with pytest.raises(ValueError, match=r"Two judges are called .*(a:B).*Rename the entry point"):
        get_reward("verifiable")


def test_unknown_name_gives_the_nearest_and_the_list():
    with pytest.raises(
        ValueError, match=r"no reward 'verifable'\. Did you mean 'verifiable'\? Available: .*verifiable"
    ):
        get_reward("verifable")


def test_missing_package_gives_the_install_line(plugin):
    name = plugin("needs_more", "import surely_not_installed.deep\n")
    with pytest.raises(MissingPackageError, match=r"pip install surely-not-installed$"):
        get_reward(f"{name}:Anything")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no_such_module:X", r"no module 'no_such_module'.*before the colon"),
        ("acme_rewards:Brightnes", r"no 'Brightnes'.*Brightness.*after the colon"),
        ("acme_rewards:torch", r"no subclass of rewards.Reward"),
        (":Brightness", r"':Brightness' is no reward.*package.module:Class"),
        (".acme_rewards:Brightness", r"is no reward.*package.module:Class"),
    ],
)
def test_wrong_dotted_paths_are_explained(plugin, target, message):
    plugin("acme_rewards", THIRD_PARTY)
    with pytest.raises(ValueError, match=message):
        get_reward(target)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('    licence = "MIT"\n', r"does not say its licence"),
        ('    higher_is_better = {"brightness": True}\n', r"does not say its higher_is_better"),
    ],
)
def test_an_incomplete_reward_is_refused(plugin, line, message):
    name = plugin("incomplete", THIRD_PARTY.replace(line, ""))
    with pytest.raises(ValueError, match=message):
        get_reward(f"{name}:Brightness")


@pytest.mark.parametrize(
    ("line", "instead", "message"),
    [
        ('needs = frozenset({"video"})', 'needs = frozenset({"picture"})', r"needs frozenset.*video, audio, text"),
        ('needs = frozenset({"video"})', 'needs = "video"', r"needs 'video'.*frozenset of video, audio, text"),
        ('"brightness"', '"error"', r"the column 'error'.*Rename it"),
        ("def score", "def rate", r"no method score"),
    ],
)
def test_a_reward_whose_scores_would_be_wrong_or_lost_is_refused(plugin, line, instead, message):
    name = plugin("careless", THIRD_PARTY.replace(line, instead))
    with pytest.raises(ValueError, match=message):
        get_reward(f"{name}:Brightness")


def test_directions_must_match_the_columns(plugin):
    name = plugin("mismatched", THIRD_PARTY.replace('{"brightness": True}', '{"light": True}'))
    with pytest.raises(ValueError, match=r"columns \['brightness'\].*directions for \['light'\]"):
        get_reward(f"{name}:Brightness")


def test_a_path_is_refused_where_there_are_no_weights(plugin):
    reward = get_reward(f"{plugin('acme_rewards', THIRD_PARTY)}:Brightness")
    with pytest.raises(ValueError, match="has no weights to load"):
        reward.load("weights/")


LEARNED = ["videoalign", "audiobox", "imagebind", "synchformer"]


def test_a_group_stands_for_its_rewards():
    assert expand_names(["learned"]) == LEARNED
    assert expand_names(["acme:Brightness", " Learned "]) == ["acme:Brightness", *LEARNED]
    assert set(LEARNED) <= set(available_rewards())


@pytest.mark.parametrize("names", [["learned", "ImageBind"], ["a:B", "a:B"], ["Verifiable", "verifiable"]])
def test_a_reward_named_twice_is_refused(names):
    with pytest.raises(ValueError, match=r"is named twice, by .* and by .*Leave out one"):
        expand_names(names)


def test_a_group_is_no_single_reward_and_its_name_is_taken(monkeypatch):
    with pytest.raises(ValueError, match=r"stands for several rewards.*videoalign"):
        get_reward("learned")
    with pytest.raises(ValueError, match="Did you mean 'learned'"):
        get_reward("learnd")
    install(monkeypatch, ("Learned", "a:B"))
    with pytest.raises(ValueError, match=r"a:B is called 'Learned'.*Rename"):
        available_rewards()


def test_the_version_tells_the_protocol_only_where_it_changes_scores(plugin):
    reward = get_reward(f"{plugin('acme_rewards', THIRD_PARTY)}:Brightness")
    assert reward.version_under("javisbench") == reward.version_under("correct") == "1"

    class TwoWays(reward):
        protocols = ("correct", "javisbench")

    assert TwoWays.version_under("correct") == "1"
    assert TwoWays.version_under("javisbench") == "1+javisbench"


def test_a_judge_that_ranks_nothing_is_no_reward():
    assert get_judge("clip").outputs == {"clip_score": None}
    assert get_judge("imagebind") is get_reward("imagebind")
    assert "clip" not in available_rewards()
    with pytest.raises(ValueError, match=r"no reward 'clip'"):
        get_reward("clip")
    with pytest.raises(ValueError, match=r"no judge 'clib'\. Did you mean 'clip'"):
        get_judge("clib")
