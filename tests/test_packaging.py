"""The papers of the package agree with the code: version, licences of weights, extras that the documents name."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

import avdpo
from model.fetch.catalogue import SOURCES

ROOT = Path(__file__).parents[1]
NOTICE = (ROOT / "NOTICE").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LICENCES = ("MIT", "Apache-2.0", "CC BY 4.0", "CC BY-NC 4.0", "CC BY-NC-SA 4.0")
CODE = [path for folder in ROOT.iterdir() if (folder / "__init__.py").is_file() for path in folder.rglob("*.py")]


def notice_entry(component: str) -> str:
    """The lines of NOTICE's table that belong to a component."""
    return re.search(rf"^{component} .*(?:\n +\S.*)*", NOTICE, flags=re.MULTILINE)[0]


def test_the_version_is_the_same_everywhere():
    assert version("avdpo") == avdpo.__version__
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == avdpo.__version__
    assert citation["license"] == PROJECT["license"]


@pytest.mark.parametrize("component", SOURCES)
def test_notice_names_the_weights_and_their_licence(component):
    entry = notice_entry(component)
    for source in SOURCES[component].sources:
        if not source.name.endswith(".py"):  # VideoAlign's text, which goes with its weights
            name = source.name.rsplit("/", 1)[-1] if source.name.startswith("https:") else source.name
            assert name in entry
    assert [name for name in LICENCES if name in entry] == [
        name for name in LICENCES if name in SOURCES[component].licence
    ]
    assert ("(*)" in entry) == SOURCES[component].non_commercial


def test_every_extra_that_is_named_exists():
    named = {
        extra
        for path in [*DOCUMENTS, *CODE]
        for group in re.findall(r"avdpo\[([a-z0-9,]+)\]", path.read_text(encoding="utf-8"))
        for extra in group.split(",")
    }
    assert named
    assert named <= set(PROJECT["optional-dependencies"])
