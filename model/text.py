"""Prompts to text embeddings: the published cleaning, a tokenizer, a UMT5 encoder."""

import html
import re
from dataclasses import dataclass
from pathlib import Path

import ftfy
import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase, UMT5EncoderModel


@dataclass(frozen=True, eq=False)
class TextEmbeddings:
    """Embeddings of a batch of prompts, padded to the model's text length."""

    embeds: Tensor  # float32 (B, L, D), zero where mask is 0
    mask: Tensor  # bool (B, L)

    @property
    def lengths(self) -> Tensor:
        return self.mask.sum(dim=1)  # (B,)


class TextEncoder:
    """A frozen text encoder with its tokenizer."""

    def __init__(self, model: UMT5EncoderModel, tokenizer: PreTrainedTokenizerBase, text_len: int) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.text_len = text_len

    @torch.no_grad()
    def __call__(self, prompts: list[str]) -> TextEmbeddings:
        """Embeds prompts one at a time, so that an embedding never depends on its neighbours; cut to `text_len`."""
        rows = [self._embed(clean_prompt(prompt)) for prompt in prompts]
        return TextEmbeddings(torch.stack([row[0] for row in rows]), torch.stack([row[1] for row in rows]))

    def save_pretrained(self, folder: str | Path) -> None:
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    @classmethod
    def from_pretrained(cls, folder: str | Path, text_len: int) -> "TextEncoder":
        model = UMT5EncoderModel.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        return cls(model, AutoTokenizer.from_pretrained(folder, local_files_only=True), text_len)

    def _embed(self, prompt: str) -> tuple[Tensor, Tensor]:
        tokens = self.tokenizer(
            prompt, padding="max_length", max_length=self.text_len, truncation=True, return_tensors="pt"
        ).to(self.model.device)
        hidden = self.model(tokens.input_ids, tokens.attention_mask).last_hidden_state[0]
        mask = tokens.attention_mask[0].bool()
        return hidden.float() * mask[:, None], mask


def clean_prompt(prompt: str) -> str:
    """Repairs broken Unicode, unescapes HTML twice and joins white space (facts_autoencoders_text section 4)."""
    text = html.unescape(html.unescape(ftfy.fix_text(prompt))).strip()
    return re.sub(r"\s+", " ", text).strip()
