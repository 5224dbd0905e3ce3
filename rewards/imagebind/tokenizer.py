"""Texts to ids: CLIP's byte-level BPE behind the cleaning of ImageBind (docs/upstream/imagebind.md, section 5)."""

from __future__ import annotations

import gzip
import hashlib
import html
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import ftfy
import torch
from tokenizers import normalizers
from torch import Tensor
from transformers import CLIPTokenizer

from rewards.base import Protocol

VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
VOCABULARY_SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
VOCABULARY_SOURCE = "https://github.com/openai/CLIP/raw/main/clip/bpe_simple_vocab_16e6.txt.gz"
NUM_MERGES = 48_894
START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"


class TextTokenizer:
    """Tokenizer of texts to ids (B, context_length), padded with 0; the end has the largest id."""

    def __init__(self, tokenizer: CLIPTokenizer, context_length: int) -> None:
        self._tokenizer = tokenizer
        self._tokenizer.backend_tokenizer.normalizer = normalizers.Sequence([])  # `clean` does all of it
        self.context_length = context_length
        self.vocab_size = len(tokenizer)
        self.start, self.end = (tokenizer.get_vocab()[token] for token in (START, END))
        if self.end != self.vocab_size - 1:
            raise ValueError(
                f"The tokenizer gives {END} the id {self.end} of {self.vocab_size}, but ImageBind reads the end of a "
                "text off its largest id: give a CLIP tokenizer, whose last token is the end."
            )

    def __call__(self, texts: Sequence[str], protocol: Protocol) -> Tensor:
        """int64 (B, context_length). A text that is too long is cut; under "javisbench" its end is cut off as well."""
        ids = torch.zeros(len(texts), self.context_length, dtype=torch.int64)
        for row, text in enumerate(texts):
            inner = self._tokenizer(clean(text), add_special_tokens=False)["input_ids"]
            if protocol == "correct":
                inner = inner[: self.context_length - 2]
            whole = [self.start, *inner, self.end][: self.context_length]
            ids[row, : len(whole)] = torch.tensor(whole)
        return ids

    def save(self, folder: Path) -> None:
        """Writes the `tokenizer.json` and its companion that `load_tokenizer` reads."""
        self._tokenizer.save_pretrained(folder)


def load_tokenizer(folder: Path, context_length: int) -> TextTokenizer:
    """The tokenizer beside the weights: a `tokenizer.json`, there or in `tokenizer/`, or CLIP's vocabulary file.

    Raises:
        ValueError: there is none, or the vocabulary file is another one than CLIP's.
    """
    for place in (folder / "tokenizer", folder):
        if (place / "tokenizer.json").is_file():
            return TextTokenizer(CLIPTokenizer.from_pretrained(place), context_length)
    path = folder / VOCABULARY
    if not path.is_file():
        raise ValueError(
            f"{folder} holds neither {VOCABULARY} nor a tokenizer.json, so ImageBind cannot read prompts. Fetch the "
            f"vocabulary of CLIP (MIT licence, sha256 {VOCABULARY_SHA256}) from {VOCABULARY_SOURCE} into that folder."
        )
    content = path.read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != VOCABULARY_SHA256:
        raise ValueError(
            f"{path} has the sha256 {found}, but CLIP's vocabulary has {VOCABULARY_SHA256}: fetch it again from "
            f"{VOCABULARY_SOURCE}."
        )
    lines = gzip.decompress(content).decode("utf-8").split("\n")
    return TextTokenizer(clip_tokenizer(lines[1 : NUM_MERGES + 1]), context_length)


def clip_tokenizer(merges: Sequence[str]) -> CLIPTokenizer:
    """A CLIP tokenizer with these merges, each "left right": 512 byte symbols, the merges, start, end."""
    pairs = [(left, right) for left, right in (merge.split() for merge in merges)]
    symbols = byte_symbols()
    tokens = [*symbols, *(symbol + WORD_END for symbol in symbols), *map("".join, pairs), START, END]
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}  # two merges may make one token
    return CLIPTokenizer(vocab=vocab, merges=pairs)  # type: ignore[arg-type]  # it takes pairs alone


def train_clip_tokenizer(texts: Iterable[str], num_merges: int) -> CLIPTokenizer:
    """A CLIP tokenizer with at most `num_merges` merges, the most frequent pairs of the texts, for small models.

    The same texts give the same merges, which the trainer of the tokenizers package does not promise for ties.
    """
    splitter = clip_tokenizer([]).backend_tokenizer.pre_tokenizer
    pieces = Counter(piece for text in texts for piece, _ in splitter.pre_tokenize_str(clean(text)))
    words = {(*piece[:-1], piece[-1] + WORD_END): count for piece, count in pieces.items()}
    merges: list[str] = []
    while len(merges) < num_merges:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            pairs.update(dict.fromkeys(pairwise(word), count))
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(" ".join(best))
        words = {_merged(word, best): count for word, count in words.items()}
    return clip_tokenizer(merges)


def _merged(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    symbols: list[str] = []
    for symbol in word:
        if symbols and (symbols[-1], symbol) == pair:
            symbols[-1] += symbol
        else:
            symbols.append(symbol)
    return tuple(symbols)


def clean(text: str) -> str:
    """Repair the encoding, resolve HTML entities, collapse spaces and lower the case."""
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return re.sub(r"\s+", " ", text).strip().lower()


def byte_symbols() -> list[str]:
    """One visible character for each of the 256 bytes, in the order of CLIP's ids: bytes that are visible first."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in visible] + [chr(256 + index) for index in range(256 - len(visible))]
