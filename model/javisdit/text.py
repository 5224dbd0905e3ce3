"""Text encoding of prompts: the published cleaning, a tokenizer and a UMT5 encoder."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ftfy
import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase, UMT5Config, UMT5EncoderModel

from core.checkpoint_kinds import looks_like
from core.state_files import StateFiles, fill_module
from model.javisdit.weights.tensor_names import from_umt5_original

ORIGINAL_WEIGHTS = "models_t5_umt5-xxl-enc-bf16.pth"  # file name in the Wan2.1 repositories
ORIGINAL_TOKENIZER = "google/umt5-xxl"  # relative to the same folder
DEFAULT_TEXT_LEN = 512
DECODER_PREFIXES = ("decoder.", "lm_head.")  # parts of a complete UMT5, of which only the encoder is read
RELATIVE_MAX_DISTANCE = 128  # of the relative position buckets; cannot be inferred from tensor shapes


@dataclass(frozen=True, eq=False)
class TextEmbeddings:
    """Embeddings of a batch of prompts, padded to the model's text length."""

    embeds: Tensor  # float32 (B, L, D), zero where mask is 0
    mask: Tensor  # bool (B, L)

    def trimmed(self) -> list[Tensor]:
        """Return each prompt's embedding without padding, (length, D), for storage."""
        return [embed[mask] for embed, mask in zip(self.embeds, self.mask, strict=True)]


class TextEncoder:
    """A frozen text encoder with its tokenizer."""

    def __init__(self, model: UMT5EncoderModel, tokenizer: PreTrainedTokenizerBase, text_len: int) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.text_len = text_len

    @torch.no_grad()
    def __call__(self, prompts: list[str]) -> TextEmbeddings:
        """Embed prompts, cut to `text_len` tokens, one at a time: an embedding never depends on the other prompts."""
        rows = [self._embed(clean_prompt(prompt)) for prompt in prompts]
        return TextEmbeddings(torch.stack([row[0] for row in rows]), torch.stack([row[1] for row in rows]))

    def to(self, device: str | torch.device) -> TextEncoder:
        """Move the weights and return the encoder."""
        self.model.to(device)
        return self

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the encoder and its tokenizer as a transformers folder."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    @classmethod
    def from_pretrained(
        cls, path: str | Path, text_len: int = DEFAULT_TEXT_LEN, dtype: torch.dtype = torch.float32
    ) -> TextEncoder:
        """Read a transformers folder, or the original files of a Wan2.1 folder.

        Args:
            path: folder with `config.json`, or with Wan2.1's encoder file.
            text_len: length in tokens to which prompts are padded or cut.
            dtype: dtype of the encoder.

        Raises:
            ValueError: if the folder is neither, or one of its files is missing or wrong.
        """
        path = Path(path)
        if (path / ORIGINAL_WEIGHTS).is_file():
            model, tokenizer_path = load_umt5_original(path / ORIGINAL_WEIGHTS, dtype), path / ORIGINAL_TOKENIZER
        elif (path / "config.json").is_file():
            model, tokenizer_path = _load_transformers(path, dtype), path
        else:
            raise ValueError(
                f"{path} is no text encoder: it has neither config.json (transformers) nor {ORIGINAL_WEIGHTS}. Give a "
                "folder that has one of them."
            )
        if not (tokenizer_path / "tokenizer_config.json").is_file():
            raise ValueError(f"{tokenizer_path} has no tokenizer_config.json: copy the encoder's tokenizer there.")
        return cls(model, AutoTokenizer.from_pretrained(tokenizer_path, local_files_only=True), text_len)

    def _embed(self, prompt: str) -> tuple[Tensor, Tensor]:
        tokens = self.tokenizer(
            prompt, padding="max_length", max_length=self.text_len, truncation=True, return_tensors="pt"
        ).to(self.model.device)
        hidden = self.model(tokens.input_ids, tokens.attention_mask).last_hidden_state[0]
        mask = tokens.attention_mask[0].bool()
        return hidden.float() * mask[:, None], mask


def load_umt5_original(path: str | Path, dtype: torch.dtype = torch.float32) -> UMT5EncoderModel:
    """Load transformers' encoder from a file in Wan2.1's naming; sizes are inferred from the tensor shapes.

    Raises:
        ValueError: if the file contains another network.
    """
    files = StateFiles(path)
    config = _infer_umt5_config(files)
    with torch.device("meta"):
        model = UMT5EncoderModel(config)
    # Only the stack is filled: `shared.weight` is the same embedding under a second name, tied again below.
    tensors = ((from_umt5_original(name), tensor) for name, tensor in files.tensors(dtype))
    fill_module(model.encoder, tensors, str(path))
    model.set_input_embeddings(model.encoder.embed_tokens)
    return model.eval()


def clean_prompt(prompt: str) -> str:
    """Repair broken Unicode, unescape HTML twice and reduce white space to single spaces.

    Source: docs/upstream/autoencoders_text.md, section 4.
    """
    text = html.unescape(html.unescape(ftfy.fix_text(prompt))).strip()
    return re.sub(r"\s+", " ", text).strip()


def _load_transformers(folder: Path, dtype: torch.dtype) -> UMT5EncoderModel:
    """Load the encoder with transformers; raise ValueError for missing tensors, which it would fill at random."""
    loaded: Any = UMT5EncoderModel.from_pretrained(folder, dtype=dtype, local_files_only=True, output_loading_info=True)
    model, found = loaded
    surplus = {name for name in found["unexpected_keys"] if not name.startswith(DECODER_PREFIXES)}
    faults = {"missing": found["missing_keys"], "surplus": surplus, "misshapen": found["mismatched_keys"]}
    if any(faults.values()):
        counts = "; ".join(f"{len(names)} {kind}, such as {min(names)}" for kind, names in faults.items() if names)
        raise ValueError(f"{folder} does not fit its config.json: {counts}. Fetch or copy the whole folder again.")
    encoder: UMT5EncoderModel = model
    return encoder


def _infer_umt5_config(files: StateFiles) -> UMT5Config:
    shapes = files.shapes
    bias = shapes.get("blocks.0.pos_embedding.embedding.weight")
    if bias is None:
        raise ValueError(
            f"{files.path} is no UMT5 encoder in Wan2.1's naming: it looks like {looks_like(shapes)}. Give "
            f"{ORIGINAL_WEIGHTS}."
        )
    (num_buckets, num_heads), (attention_dim, dim) = bias, shapes["blocks.0.attn.q.weight"]
    return UMT5Config(
        vocab_size=shapes["token_embedding.weight"][0],
        d_model=dim,
        d_kv=attention_dim // num_heads,
        d_ff=shapes["blocks.0.ffn.fc1.weight"][0],
        num_layers=1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("blocks.")),
        num_heads=num_heads,
        relative_attention_num_buckets=num_buckets,
        relative_attention_max_distance=RELATIVE_MAX_DISTANCE,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
    )
