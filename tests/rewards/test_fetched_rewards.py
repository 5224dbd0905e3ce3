"""What `python -m model.fetch` leaves is all that a reward needs: small checkpoints under the published names."""

from __future__ import annotations

import gzip
import json
from dataclasses import asdict, replace

import pytest
import torch

from model.fetch.catalogue import SOURCES, HubRepo, PythonText, Source, WebFile
from model.fetch.command import main
from rewards import Prompt, get_reward
from rewards.audiobox.checkpoint import save_network
from rewards.imagebind import tokenizer
from rewards.imagebind.loading import USED
from rewards.imagebind.network import ImageBind
from rewards.videoalign.config import PUBLISHED_TEMPLATE_SHA256
from rewards.videoalign.prompt import TEMPLATE_NAME
from tests.model.fetch.fake_hub import serving, sha256
from tests.rewards.audiobox.audiobox_samples import tiny_network
from tests.rewards.imagebind.small_imagebind import noise_clip, small_config
from tests.rewards.synchformer.small_synchformer import SMALL, small_network
from tests.rewards.videoalign.videoalign_folder import TEMPLATE, write_folder

MERGES = ("a l", "al l</w>", "b all</w>")


def publish_audiobox(folder):
    save_network(tiny_network(), folder / "audiobox-aesthetics")


def publish_videoalign(folder):
    template = write_folder(folder / "VideoReward", step=11352) / TEMPLATE_NAME
    template.unlink()
    python = f"raise SystemExit\nDETAILED_PROMPT_WITH_SPECIAL_TOKEN = {TEMPLATE!r}\n"
    (folder / "prompt_template.py").write_text(python, encoding="utf-8")


def publish_imagebind(folder):
    lines = "\n".join(["a header", *MERGES])
    (folder / tokenizer.VOCABULARY).write_bytes(gzip.compress(lines.encode()))
    config = small_config(len(tokenizer.clip_tokenizer(MERGES)))
    torch.save(ImageBind(config, USED).state_dict(), folder / "imagebind_huge.pth")
    (folder / "config.json").write_text(json.dumps(asdict(config)), encoding="utf-8")


def publish_synchformer(folder):
    torch.save(small_network().state_dict(), folder / "synchformer_state_dict.pth")
    (folder / "config.json").write_text(json.dumps(asdict(SMALL)), encoding="utf-8")


PUBLISH = {
    "audiobox": publish_audiobox,
    "videoalign": publish_videoalign,
    "imagebind": publish_imagebind,
    "synchformer": publish_synchformer,
}


def small(source: Source, folder, url: str) -> Source:
    """The source as in the table, but of the small checkpoint in `folder`."""
    if isinstance(source, HubRepo):
        return replace(source, sha256={}, include=(*source.include, "config.json"))
    name = source.name.split("/")[-1]
    content = (folder / name).read_bytes()
    if isinstance(source, PythonText):
        text = TEMPLATE.encode()
        return replace(source, name=f"{url}/{name}", python_size=len(content), size=len(text), sha256=sha256(text))
    return replace(source, name=f"{url}/{name}", size=len(content), sha256=sha256(content))


def serve(server, folder, sources):
    """Puts the small checkpoint on the server, as the hub's repositories and files of the web."""
    for source in sources:
        if isinstance(source, HubRepo):
            below = folder / source.folder
            files = [path for path in below.rglob("*") if path.is_file()]
            server.hub[source.name] = {path.relative_to(below).as_posix(): path.read_bytes() for path in files}
        else:
            name = source.name.split("/")[-1]
            server.web[f"/{name}"] = (folder / name).read_bytes()


@pytest.mark.parametrize("hub", ["server", "folder"])
@pytest.mark.parametrize("name", PUBLISH)
def test_a_fetched_reward_loads_and_scores_without_any_further_step(tmp_path, monkeypatch, name, hub):
    published, weights = tmp_path / "published", tmp_path / "weights"
    published.mkdir()
    PUBLISH[name](published)
    if name == "imagebind":
        vocabulary = (published / tokenizer.VOCABULARY).read_bytes()
        monkeypatch.setattr(tokenizer, "VOCABULARY_SHA256", sha256(vocabulary))
    with serving() as server:
        sources = [small(source, published, server.url) for source in SOURCES[name].sources]
        if (published / "config.json").exists():  # the sizes, which published weights alone need not state
            sizes = WebFile(name="https://published/config.json", size=0, sha256="")
            sources.append(small(sizes, published, server.url))
        serve(server, published, sources)
        components = {name: replace(SOURCES[name], sources=tuple(sources))}
        origin = server.url if hub == "server" else str(published)
        argv = ["--components", name, "--output", str(weights), "--hub", origin, "--accept_licences"]
        assert main(argv, components) == 0
    reward = get_reward(name).load(str(weights))
    scores = reward.score([noise_clip(2.1)], [Prompt("0", "red ball")])
    assert set(scores) == set(reward.columns)
    assert all(bool(score.isfinite().all()) for score in scores.values())
    assert not list(weights.rglob("*.py"))


def test_the_table_of_sources_and_the_rewards_state_the_same():
    vocabulary = SOURCES["imagebind"].sources[1]
    assert vocabulary.destinations == (tokenizer.VOCABULARY,)
    assert (vocabulary.name, vocabulary.sha256) == (tokenizer.VOCABULARY_SOURCE, tokenizer.VOCABULARY_SHA256)
    template = SOURCES["videoalign"].sources[1]
    assert template.destinations == (f"{get_reward('videoalign').published}/{TEMPLATE_NAME}",)
    assert template.sha256 == PUBLISHED_TEMPLATE_SHA256
    for name in PUBLISH:
        published = get_reward(name).published
        assert all(path.split("/")[0] == published for path in SOURCES[name].sources[0].destinations), name
