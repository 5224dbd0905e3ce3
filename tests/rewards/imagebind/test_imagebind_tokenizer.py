"""Texts to ids: CLIP's own where its vocabulary is at hand, and small tokenizers of the same kind."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from rewards.imagebind.tokenizer import VOCABULARY, VOCABULARY_SHA256, load_tokenizer, train_clip_tokenizer
from tests.golden_files import ROOT, golden_path
from tests.rewards.imagebind.small_imagebind import small_tokenizer

GOLDEN_IDS = {"correct": "ids_official", "javisbench": "ids_javis"}


@pytest.fixture(scope="module")
def clip_vocabulary():
    """The folder of CLIP's vocabulary file: beside the clone, or in a package that carries it."""
    packages = [importlib.util.find_spec(name) for name in ("open_clip", "clip")]
    folders = [ROOT.parent / "shared" / "weights"]
    folders += [Path(place) for spec in packages if spec for place in spec.submodule_search_locations or ()]
    for folder in folders:
        if (folder / VOCABULARY).is_file():
            return folder
    pytest.skip(f"{VOCABULARY} is not at hand: it comes with the weights, and with the package open_clip_torch")


def test_ids_are_the_published_ones(clip_vocabulary):
    tokenizer = load_tokenizer(clip_vocabulary, 77)
    for entry in json.loads(golden_path("synchformer_imagebind/ib_tokens.json").read_text(encoding="utf-8")):
        for protocol, ids in GOLDEN_IDS.items():
            assert tokenizer([entry["text"]], protocol)[0].tolist() == entry[ids], (entry["text"], protocol)


def test_a_text_is_mended_before_it_is_cut_into_tokens():
    ids = small_tokenizer()(["  A small\tRED\n ball ", "a small red ball"], "correct")
    assert ids[0].tolist() == ids[1].tolist()
    entities = small_tokenizer()(["red &amp;amp; blue", "red & blue", "ball \u2019s", "ball 's"], "correct").tolist()
    assert entities[0] == entities[1]
    assert entities[2] == entities[3]


def test_a_text_that_is_too_long_keeps_its_end_by_default_only():
    tokenizer = small_tokenizer()
    text = "red blue " * 20
    correct, published = (tokenizer([text], protocol)[0].tolist() for protocol in ("correct", "javisbench"))
    assert correct[:-1] == published[:-1]
    assert correct[-1] == tokenizer.end
    assert tokenizer.end not in published


def test_padding_is_zero_and_the_end_is_the_largest_id():
    tokenizer = small_tokenizer()
    ids = tokenizer(["", "a red ball"], "correct")
    assert ids[0].tolist() == [tokenizer.start, tokenizer.end] + [0] * 14
    assert (ids.max(dim=1).values == tokenizer.end).all()
    assert tokenizer.end == tokenizer.vocab_size - 1


def test_any_text_has_ids_in_a_small_vocabulary(tmp_path):
    small_tokenizer().save(tmp_path)
    reloaded = load_tokenizer(tmp_path, 16)
    texts = ["a small red ball", "猫 🐶 zebra!", "left 3"]
    assert reloaded(texts, "correct").tolist() == small_tokenizer()(texts, "correct").tolist()


def test_a_small_vocabulary_is_learned_from_its_texts_alone():
    tokenizer = train_clip_tokenizer(["Ball  ball ball &amp; bat"], 4)
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    assert tokens[512:] == ["ba", "bal", "ball</w>", "bat</w>", "<|startoftext|>", "<|endoftext|>"]
    assert tokenizer.tokenize("ball bat bag") == ["ball</w>", "bat</w>", "ba", "g</w>"]


def test_without_a_vocabulary_the_error_names_file_hash_and_source(tmp_path):
    with pytest.raises(ValueError, match=rf"{VOCABULARY}.*{VOCABULARY_SHA256}.*openai/CLIP"):
        load_tokenizer(tmp_path, 77)


def test_another_vocabulary_is_refused_by_its_hash(tmp_path):
    (tmp_path / VOCABULARY).write_bytes(b"something else")
    with pytest.raises(ValueError, match=rf"has the sha256 \w+, but CLIP's vocabulary has {VOCABULARY_SHA256}"):
        load_tokenizer(tmp_path, 77)
