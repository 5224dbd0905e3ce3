"""Prompt cleaning is the published one."""

import json

from golden import golden_path

from model.text import clean_prompt


def test_cleaning_equals_the_published_one():
    pairs = json.loads(golden_path("media/text_cleaning.json").read_text(encoding="utf-8"))["pairs"]
    assert pairs
    for raw, cleaned in pairs:
        assert clean_prompt(raw) == cleaned
