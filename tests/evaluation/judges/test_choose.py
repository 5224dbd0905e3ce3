"""Which judges a run can use, and what is said of metrics whose weights are absent."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from evaluation.judges.choose import choose_judges, network_name
from evaluation.judges.clap_score import FILES as CLAP_FILES
from evaluation.judges.clip_score import FILES as CLIP_FILES
from evaluation.judges.metrics import choose_metrics
from model.fetch.catalogue import SOURCES
from model.fetch.command import FetchConfig
from rewards.registry import BUILTIN_JUDGES, get_judge

WITH_WEIGHTS = [name for name in BUILTIN_JUDGES if get_judge(name).published is not None]


def destinations(component: str) -> list[str]:
    return [path for source in SOURCES[component].sources for path in source.destinations]


def put_there(component: str, weights: Path) -> None:
    """Empty files where `model.fetch` would leave the component's."""
    for destination in destinations(component):
        path = weights / destination.replace("*", "file")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_what_is_fetched_is_found(name, tmp_path):
    published, component = get_judge(name).published, network_name(name)
    [metric, *_] = [metric for metric in choose_metrics(["all"]) if metric.judge == name]
    _, [skipped] = choose_judges([metric], str(tmp_path), "correct")
    assert skipped.metric == metric.name
    assert published in skipped.advice
    assert f"python -m model.fetch --components {component} --output {tmp_path} --accept_licences" in skipped.advice
    put_there(component, tmp_path)
    chosen, skipped = choose_judges([metric], str(tmp_path), "correct")
    assert skipped == []
    assert chosen[name].path == str((tmp_path / published).resolve())


@pytest.mark.parametrize(("component", "files"), [("clip", CLIP_FILES), ("clap", CLAP_FILES)])
def test_all_files_of_a_folder_are_fetched(component, files):
    folder = get_judge(component).published
    for file in (*files, "pytorch_model.bin"):
        assert any(fnmatchcase(f"{folder}/{file}", path) for path in destinations(component)), file


def test_every_metric_that_is_skipped_says_what_to_run():
    chosen, skipped = choose_judges(choose_metrics(["all"]), None, "correct")
    assert set(chosen) == {"av_align"}
    assert [one.metric for one in skipped] == [m.name for m in choose_metrics(["all"]) if m.name != "av_align"]
    for one in skipped:
        assert "no --weights were given" in one.advice
        words = one.command.split()
        FetchConfig(output=Path(words[6]), components=[words[4]])  # refuses components that do not exist
    commands = {one.metric: one.command for one in skipped}
    assert "--components i3d --output weights" in commands["fvd"]
    assert "--components imagebind " in commands["javis_score"]
    assert "--components synchformer " in commands["desync"]


def test_a_preset_stands_for_the_rewards_alone():
    chosen, skipped = choose_judges(choose_metrics(["fvd", "ib_tv", "javis_score"]), "tiny", "correct")
    assert set(chosen) == {"imagebind", "javis"}
    [one] = skipped
    assert "i3d_pretrained_400.pt, and the preset 'tiny' has none of it" in one.advice
    assert one.command.endswith("--components i3d --output weights --accept_licences")
