"""The README names nothing that does not exist."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"python -m ([a-z_]+\.[a-z_]+)", README)))
FLAGS = re.findall(r"python -m ([a-z_.]+)((?:[^`\n]|\\\n)*)", README)
IMPORTS = re.findall(r"^from ((?:model|rewards|dpo|pipeline|media)[\w.]*) import (.+)$", README, flags=re.MULTILINE)


def command_module(name):
    """The module whose `main` runs `python -m name`: the one of that name, or `command` in the package of that name."""
    module = importlib.import_module(name)
    return importlib.import_module(f"{name}.command") if hasattr(module, "__path__") else module


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [command, "--help"])
    try:
        status = command_module(command).main()
    except SystemExit as ended:
        status = ended.code
    assert not status
    explained = capsys.readouterr().out
    written = {flag for name, rest in FLAGS if name == command for flag in re.findall(r"--\w+", rest)}
    assert written <= set(re.findall(r"--\w+", explained)) | {"--help"}


@pytest.mark.parametrize(("module", "names"), IMPORTS)
def test_every_import_works(module, names):
    for name in names.split(", "):
        assert hasattr(importlib.import_module(module), name)


def test_every_path_is_there():
    named = re.findall(r"`((?:recipes|docs|model|dpo|pipeline|media|tests|benchmarks)/[\w./]*)`", README)
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []
