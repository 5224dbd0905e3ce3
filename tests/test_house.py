"""The floor plan holds: floors, no import circles, sizes of folders, files and functions, plain docstrings, papers."""

from __future__ import annotations

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Packages on a floor import from their own floor and from those before it.
FLOORS = (
    ("core",),
    ("media", "jobs"),
    ("model", "rewards"),
    ("dpo", "evaluation", "synthetic"),
    ("pipeline",),
    ("avdpo",),
)
FLOOR_OF = {package: number for number, floor in enumerate(FLOORS) for package in floor}
MAX_MODULES, MAX_LINES, MAX_FUNCTION_LINES = 18, 400, 80
# Words that open a riddle, not a statement of what the thing does or is.
RIDDLES = re.compile(r"(?:By|Of|Such|That|Those|What|Where|Which|Whose|Whether) ")
PAPERS = (
    "LICENSE",
    "NOTICE",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "CITATION.cff",
    "SECURITY.md",
    "docs/upstream/README.md",
)

FILES = sorted(path.relative_to(ROOT) for package in FLOOR_OF for path in (ROOT / package).rglob("*.py"))
MODULES = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


@cache
def imported(module: str) -> frozenset[str]:
    """The project's modules that a module imports, late imports and those for types included."""
    names = set()
    for node in ast.walk(tree(MODULES[module])):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            targets = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= targets & MODULES.keys() or {node.module}
    return frozenset(names & MODULES.keys() - {module})


def reachable(module: str) -> set[str]:
    """Every module that the imports of a module lead to."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        new = imported(waiting.pop()) - found
        found |= new
        waiting += new
    return found


def test_every_package_has_a_floor():
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks"}
    assert packages == FLOOR_OF.keys()


def test_no_import_goes_up_a_floor():
    upward = [
        f"{module} -> {other}"
        for module in MODULES
        for other in imported(module)
        if FLOOR_OF[other.split(".")[0]] > FLOOR_OF[module.split(".")[0]]
    ]
    assert upward == []


def test_no_imports_go_in_a_circle():
    assert [module for module in MODULES if module in reachable(module)] == []


def test_no_folder_is_crowded():
    sizes = Counter(path.parent for path in FILES if path.name not in ("__init__.py", "__main__.py"))
    assert {str(folder): size for folder, size in sizes.items() if size > MAX_MODULES} == {}


def test_no_file_and_no_function_is_long():
    lines = {str(path): len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {path: length for path, length in lines.items() if length > MAX_LINES} == {}
    lengths = {
        f"{path}: {node.name}": node.end_lineno - node.lineno + 1
        for path in FILES
        for node in ast.walk(tree(path))
        if isinstance(node, Function)
    }
    assert {name: length for name, length in lengths.items() if length > MAX_FUNCTION_LINES} == {}


def test_every_module_says_what_it_holds():
    silent = [str(path) for path in FILES if (ROOT / path).stat().st_size and not ast.get_docstring(tree(path))]
    assert silent == []


def test_docstrings_say_what_a_thing_does_or_is():
    documented = (ast.Module, ast.ClassDef, *Function.__args__)
    riddles = [
        f"{path}:{getattr(node, 'lineno', 1)}: {text.splitlines()[0]}"
        for path in FILES
        for node in ast.walk(tree(path))
        if isinstance(node, documented) and (text := ast.get_docstring(node)) and RIDDLES.match(text)
    ]
    assert riddles == []


@pytest.mark.parametrize("paper", PAPERS)
def test_a_stranger_finds_the_papers(paper):
    assert (ROOT / paper).is_file()
