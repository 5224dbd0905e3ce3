"""Input text of the model: the evaluation text around a user's prompt, one turn of the Qwen2-VL chat, in token ids.

Source: docs/upstream/videoalign.md, section 4. The evaluation text belongs to the checkpoint and is not shipped here.
"""

from __future__ import annotations

import hashlib
import string
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rewards.videoalign.config import OVERRIDES_NAME, PUBLISHED_TEMPLATE_SHA256

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEMPLATE_NAME = "prompt_template.txt"
PLACEHOLDER = "text_prompt"
REWARD_TOKENS = ("<|VQ_reward|>", "<|MQ_reward|>", "<|TA_reward|>")
VIDEO_TOKEN = "<|video_pad|>"
CONTROL_TOKENS = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", VIDEO_TOKEN)

_CHAT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n<|vision_start|><|video_pad|><|vision_end|>{text}<|im_end|>\n"
    "<|im_start|>assistant\n"
)


@dataclass(frozen=True, kw_only=True)
class TokenIds:
    """Token ids of the tokenizer that the network needs."""

    vocabulary_size: int
    video: int
    pad: int
    rewards: tuple[int, ...]  # of VQ, MQ, TA; empty where the checkpoint has no reward tokens


def read_template(folder: Path, sha256: str) -> str:
    """The evaluation text in `prompt_template.txt`, with one {text_prompt} to fill.

    Raises:
        ValueError: the file is missing, has another hash, or does not hold exactly one {text_prompt}.
    """
    path = folder / TEMPLATE_NAME
    if not path.is_file():
        raise ValueError(f"{path} is missing: the text that the model was trained to read. {_where_from(path, sha256)}")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(
            f"{path} has the sha256 {found}, not {sha256}: it is not the text that the model was trained to read. Line "
            f"ends, and spaces and newlines at the ends, count. {_where_from(path, sha256)}"
        )
    template = content.decode("utf-8")
    names = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    if names != [PLACEHOLDER]:
        raise ValueError(f"{path} holds the fields {names}, but must hold {{{PLACEHOLDER}}} once and no other braces.")
    return template


def _where_from(path: Path, sha256: str) -> str:
    if sha256 != PUBLISHED_TEMPLATE_SHA256:
        return f"Its hash is stated in {OVERRIDES_NAME} beside it: get both files again from where they came."
    constant = "DETAILED_PROMPT_WITH_SPECIAL_TOKEN"
    return (
        f"It is the constant {constant} in prompt_template.py of github.com/KwaiVGI/VideoAlign (UTF-8, sha256 {sha256})"
        '. In a clone of that repository, run: python -c "import prompt_template as p, pathlib; '
        f"pathlib.Path('{path.absolute()}').write_bytes(p.{constant}.encode())\""
    )


class ChatTokenizer:
    """Token ids of a clip's chat.

    Args:
        tokenizer: of the checkpoint; every id and the size of the vocabulary are read from it.
        template: evaluation text with {text_prompt}.
        has_reward_tokens: whether scores are read at the three reward tokens, which the template must then hold.

    Raises:
        ValueError: the tokenizer lacks one of the model's tokens, or the template one of the reward tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str, *, has_reward_tokens: bool) -> None:
        self._tokenizer = tokenizer
        self._template = template
        rewards = REWARD_TOKENS if has_reward_tokens else ()
        if counts := {token: count for token in rewards if (count := template.count(token)) != 1}:
            raise ValueError(
                f"The prompt template holds {counts} of the reward tokens, but scores are read at one of each. Give "
                "the template that belongs to this checkpoint."
            )
        vocabulary = tokenizer.get_vocab()
        if missing := [token for token in (*CONTROL_TOKENS, *rewards) if token not in vocabulary]:
            raise ValueError(
                f"The tokenizer lacks {', '.join(missing)}, so it is not a VideoReward's. Give the tokenizer/ folder "
                "that was published beside the weights."
            )
        if tokenizer.pad_token_id is None:
            raise ValueError("The tokenizer names no pad token. Give the tokenizer/ folder published with the weights.")
        self.ids = TokenIds(
            vocabulary_size=len(tokenizer),
            video=vocabulary[VIDEO_TOKEN],
            pad=tokenizer.pad_token_id,
            rewards=tuple(vocabulary[token] for token in rewards),
        )

    def encode(self, prompt: str, num_video_tokens: int) -> list[int]:
        """Ids of the whole chat, with `num_video_tokens` places for the clip.

        Raises:
            ValueError: the prompt holds one of the model's own tokens, which would shift or forge its scores.
        """
        pad = str(self._tokenizer.pad_token)
        if found := [token for token in (*REWARD_TOKENS, *CONTROL_TOKENS, pad) if token in prompt]:
            raise ValueError(
                f"The prompt {_short(prompt)} holds {', '.join(found)}, which the model reads as a mark of its own and "
                "not as text. Remove it from the prompt."
            )
        chat = self.chat(prompt)
        ids: list[int] = list(self._tokenizer(chat, add_special_tokens=False)["input_ids"])
        place = ids.index(self.ids.video)
        return [*ids[:place], *[self.ids.video] * num_video_tokens, *ids[place + 1 :]]

    def chat(self, prompt: str) -> str:
        """The chat as text, with one mark where the clip goes."""
        return _CHAT.format(text=self._template.format(text_prompt=prompt))


def _short(text: str, length: int = 60) -> str:
    return repr(text if len(text) <= length else f"{text[:length]}...")
