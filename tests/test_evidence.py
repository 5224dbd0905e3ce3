"""The golden files that a clone holds are small, documented, and all that the tests name."""

from __future__ import annotations

import re

import pytest

from tests.golden_files import COMPACT, LEFT_OUT, ROOT, golden_path

LIMIT_BYTES = 20_000_000
GOLDEN_NAME = re.compile(r'"((?:media|model|nft|ranking|synchformer_imagebind|upstream)/\w+\.(?:safetensors|npz|csv))"')


def golden_names() -> set[str]:
    """Return the names of all golden files of the clone, without the ending of packed ones."""
    files = (path for path in COMPACT.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc", ".md"})
    return {path.relative_to(COMPACT).as_posix().removesuffix(".xz") for path in files}


def test_golden_files_are_at_most_20_mb():
    assert sum(path.stat().st_size for path in COMPACT.rglob("*") if path.is_file()) <= LIMIT_BYTES


def test_the_readme_documents_every_golden_file_and_no_other():
    text = (COMPACT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\S+)` \|", text, flags=re.MULTILINE)) == golden_names()


def test_golden_files_named_by_tests_are_in_the_clone_or_left_out_with_a_reason():
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = set(GOLDEN_NAME.findall(sources))
    assert len(named) >= 20
    assert named - golden_names() == set(LEFT_OUT)
    assert len(LEFT_OUT) <= 3


def test_a_golden_file_that_nobody_left_out_is_an_error_and_no_skip():
    with pytest.raises(AssertionError, match=r"none\.npz is not in tests/golden: add it"):
        golden_path("none.npz")
