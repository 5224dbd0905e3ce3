"""Every citation of `docs/upstream` leads to a page and to a section of it, and nothing is cited in another form."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UPSTREAM = ROOT / "docs" / "upstream"
SUFFIXES = {".py", ".yaml", ".md", ".js", ".html", ".j2"}
NUMBERS = r"\d+(?:\.\d+)?"
LIST = rf"{NUMBERS}(?:(?:, | and | to ){NUMBERS})*"
IN_TEXT = re.compile(rf"docs/upstream/(?P<page>\w+)\.md`?(?:, sections? (?P<sections>{LIST}))?")
IN_BRACKETS = re.compile(rf"\[(?P<page>\w+)\.md (?P<sections>{LIST})\]")
BETWEEN_PAGES = re.compile(rf"`(?P<page>\w+)\.md`, sections? (?P<sections>{LIST})")
OLD_FORMS = re.compile(r"\bfacts_[a-z]+|\[[TDF](?:\]|:| \d)")


def sources() -> Iterator[Path]:
    """Yield the project's text files: packages, tests, documents, recipes."""
    yield from ROOT.glob("*.md")
    for folder in ROOT.iterdir():
        if (folder / "__init__.py").is_file() or folder.name in ("docs", "recipes"):
            yield from (path for path in folder.rglob("*") if path.suffix in SUFFIXES)


def unwrapped(path: Path) -> str:
    """Return a file's text with line breaks, indents and comment signs replaced by one space."""
    return re.sub(r"\s*\n[\s#]*", " ", path.read_text(encoding="utf-8"))


def citations(path: Path) -> list[tuple[str, str]]:
    """Return (page, section) of every citation in a file; the section is empty where only the page is cited."""
    patterns = [IN_TEXT, IN_BRACKETS, *([BETWEEN_PAGES] if path.parent == UPSTREAM else [])]
    found = [match.groupdict() for pattern in patterns for match in pattern.finditer(unwrapped(path))]
    return [
        (cited["page"], section) for cited in found for section in re.findall(NUMBERS, cited["sections"] or "") or [""]
    ]


@cache
def sections_of(page: str) -> set[str]:
    """Return a page's section numbers, and those of the items of its numbered lists, such as "2.7"."""
    numbers, section = {""}, ""
    for line in (UPSTREAM / f"{page}.md").read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"## (\d+)\. ", line):
            section = heading[1]
            numbers.add(section)
        elif item := re.match(r"(\d+)\. ", line):
            numbers.add(f"{section}.{item[1]}")
    return numbers


def test_every_citation_leads_somewhere():
    cited = {(str(path.relative_to(ROOT)), *citation) for path in sources() for citation in citations(path)}
    assert len({page for _, page, _ in cited}) >= 8
    lost = {
        citation
        for citation in cited
        if not (UPSTREAM / f"{citation[1]}.md").is_file() or citation[2] not in sections_of(citation[1])
    }
    assert lost == set()


def test_nothing_is_cited_in_an_older_form():
    old = {
        (str(path.relative_to(ROOT)), match[0]) for path in sources() for match in OLD_FORMS.finditer(unwrapped(path))
    }
    assert old == set()


@pytest.mark.parametrize("page", sorted(UPSTREAM.glob("*.md")), ids=lambda page: page.stem)
def test_pages_name_files_that_exist(page):
    named = re.findall(r"`((?:docs|tests)/[\w./]+\.\w+)`", page.read_text(encoding="utf-8"))
    if page.name == "README.md":
        table = page.read_text(encoding="utf-8").split("## Which golden files")[1]
        named += [
            f"tests/golden/{name}" for name in re.findall(r"`([\w/]+\.(?:safetensors|json|npz)|ranking/)`", table)
        ]
        assert len(named) > 20
    packed = [f"{name}.xz" for name in named]
    assert [
        name for name, xz in zip(named, packed, strict=True) if not ((ROOT / name).exists() or (ROOT / xz).exists())
    ] == []


@pytest.mark.parametrize("page", sorted(UPSTREAM.glob("*.md")), ids=lambda page: page.stem)
def test_sections_are_numbered_from_1(page):
    numbers = re.findall(r"^## (\d+)\. ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert numbers == [str(number) for number in range(1, len(numbers) + 1)]
    assert numbers or page.name == "README.md"
