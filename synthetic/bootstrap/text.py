"""Training of the tiny text encoder: a word-level tokenizer, and a small UMT5 that learns to predict attributes."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from torch import Tensor, nn
from tqdm import trange
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from model.javisdit.text import TextEncoder
from synthetic.captions import caption, vocabulary
from synthetic.scene import BACKGROUNDS, COLORS, MATERIALS, MAX_IMPACTS, PITCHES, SIDES, SIZES, Scene, scene_from_seed

TEXT_LEN = 40
BATCH_SIZE = 128
LEARNING_RATE = 2e-3
ATTRIBUTES: dict[str, tuple[str | int, ...]] = {
    "color": tuple(COLORS),
    "size": tuple(SIZES),
    "background": tuple(BACKGROUNDS),
    "num_impacts": tuple(range(1, MAX_IMPACTS + 1)),
    "pitch": tuple(PITCHES),
    "material": MATERIALS,
    "side": SIDES,
}


def train_text_encoder(num_steps: int) -> TextEncoder:
    """Train the encoder to predict every attribute from its mean-pooled output; the prediction heads are discarded."""
    tokenizer = word_tokenizer()
    config = UMT5Config(
        vocab_size=len(tokenizer), d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4, dropout_rate=0.0
    )
    model = UMT5EncoderModel(config).train()
    heads = nn.ModuleDict({name: nn.Linear(config.d_model, len(values)) for name, values in ATTRIBUTES.items()})
    optimizer = torch.optim.AdamW([*model.parameters(), *heads.parameters()], lr=LEARNING_RATE, weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    for step in (progress := trange(num_steps, desc="text encoder")):
        scenes = [scene_from_seed(step * BATCH_SIZE + index) for index in range(BATCH_SIZE)]
        tokens = tokenizer([caption(scene) for scene in scenes], padding=True, return_tensors="pt")
        hidden = model(tokens.input_ids, tokens.attention_mask).last_hidden_state
        weights = tokens.attention_mask[..., None] / tokens.attention_mask.sum(1)[:, None, None]
        loss = attribute_loss(heads, (hidden * weights).sum(1), scenes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        progress.set_postfix(loss=f"{loss.item():.3f}")
    return TextEncoder(model, tokenizer, TEXT_LEN)


def attribute_loss(heads: nn.ModuleDict, pooled: Tensor, scenes: list[Scene]) -> Tensor:
    """Return the sum over attributes of the cross-entropy losses of features (B, D)."""
    losses = []
    for name, values in ATTRIBUTES.items():
        labels = torch.tensor([values.index(getattr(scene, name)) for scene in scenes])
        losses.append(nn.functional.cross_entropy(heads[name](pooled), labels))
    return torch.stack(losses).sum()


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token per word of the captions' vocabulary; other words become <unk>.

    Texts end with </s>, as with UMT5's tokenizer.
    """
    special = ["<pad>", "</s>", "<unk>"]
    words = {word: index for index, word in enumerate([*special, *vocabulary()])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=TEXT_LEN
    )
