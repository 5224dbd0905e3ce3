"""Names and seeds are functions of the id alone, safe on a file system, and fixed for ever."""

from __future__ import annotations

import pytest

from core.ids import candidate_id, candidate_seed, stem
from tests.pipeline.fakes import HOSTILE


@pytest.mark.parametrize("prompt_id", [*HOSTILE, "-rf", ".", "CON"])
def test_folder_names_are_plain(prompt_id: str) -> None:
    name = stem(prompt_id)
    assert name.replace("-", "_").replace("_", "").isascii()
    assert all(character.isalnum() or character in "_-" for character in name)
    assert not name.startswith("-")
    assert len(name) <= 53


def test_folder_names_differ_where_their_readable_part_does_not() -> None:
    assert len({stem(prompt_id) for prompt_id in ["a b", "a_b", "a/b", "A_B", "x" * 300, "x" * 301]}) == 6


def test_candidate_ids() -> None:
    assert [candidate_id("a/b", index) for index in (-1, 0, 12)] == ["a/b/gt", "a/b/0", "a/b/12"]


def test_seeds_never_change() -> None:
    assert candidate_seed(0, "p0", 0) == 5757349180766041280
    assert (
        len({candidate_seed(run, prompt, index) for run in (0, 1) for prompt in ("a", "a0") for index in (0, 1)}) == 8
    )
    assert all(0 <= candidate_seed(0, prompt, 0) < 2**63 for prompt in HOSTILE)
