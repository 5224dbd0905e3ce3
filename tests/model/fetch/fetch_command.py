"""`python -m model.fetch` on small sources of a local server."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from model.fetch.catalogue import Component, HubRepo, Source, WebFile
from model.fetch.command import main
from tests.model.fetch.fake_hub import NEW, OLD, WEIGHTS, Server, sha256


def component(*sources: Source, non_commercial: bool = False) -> Component:
    return Component(purpose="a test", licence="A-1.0", sources=sources, non_commercial=non_commercial)


def sources(server: Server) -> dict[str, Component]:
    wan = HubRepo(name="owner/wan", revision=NEW, include=("vae.pth",), sha256={"vae.pth": sha256(b"vae")})
    web = WebFile(name=f"{server.url}/files/bind.pth", size=len(WEIGHTS), sha256=sha256(WEIGHTS))
    return {
        "transformer": component(HubRepo(name="owner/net", include=("model/*",))),
        "video_codec": component(wan),
        "text_encoder": component(replace(wan, include=("t5.pth", "tokenizer/*"), sha256={})),
        "audio_codec": component(HubRepo(name="owner/mel", revision=OLD, include=("config.json",))),
        "imagebind": component(web, non_commercial=True),
    }


class Command:
    """`python -m model.fetch` with the small sources, in one output folder."""

    def __init__(self, server: Server, output: Path, capsys: pytest.CaptureFixture[str]):
        self.server, self.output, self.capsys = server, output, capsys
        self.sources = sources(server)
        self.hub = server.url

    def __call__(self, *components: str, flags: tuple[str, ...] = ("--accept_licences",), status: int = 0) -> str:
        argv = ["--output", str(self.output), "--hub", self.hub, *flags]
        found = main([*argv, *(["--components", *components] if components else [])], self.sources)
        captured = self.capsys.readouterr()
        assert found == status, captured.err
        return captured.out if status == 0 else captured.err

    def lock(self) -> dict[str, dict]:
        return json.loads((self.output / "fetched.json").read_text())["files"]


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
