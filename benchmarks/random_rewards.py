"""The four learned rewards at their published sizes with random weights, for timing without the published weights.

The tiny preset's tokenizers encode the texts; VideoAlign's evaluation text has as many tokens as the published one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from rewards import Reward
from rewards.audiobox import AudioBoxReward
from rewards.audiobox.network import AestheticsNetwork
from rewards.imagebind import ImageBindReward
from rewards.imagebind.config import ImageBindConfig
from rewards.imagebind.encoder import ImageBindEncoder
from rewards.imagebind.loading import USED
from rewards.imagebind.network import ImageBind
from rewards.imagebind.tokenizer import TextTokenizer, clip_tokenizer
from rewards.synchformer import SynchformerReward
from rewards.synchformer.config import SynchformerConfig
from rewards.synchformer.network import Synchformer
from rewards.videoalign import VideoAlignReward
from rewards.videoalign.config import VideoAlignConfig
from rewards.videoalign.network import VideoAlignNetwork
from rewards.videoalign.prompt import REWARD_TOKENS, ChatTokenizer
from synthetic.train_rewards.tasks.videoalign import word_tokenizer

PUBLISHED_TEMPLATE_TOKENS = 900  # approximately; the template has 3,997 characters
PUBLISHED_VOCABULARY = 151_660
FLOAT32_MODULES = (
    "wavlm.feature_extractor.conv_layers.0",
    "proj_layer",
    "layer_weights",
)  # modules of AudioBox that stay in float32, as when loaded


def random_reward(name: str, device: str, dtype: torch.dtype) -> Reward:
    """Build a reward of the published size with random weights.

    Args:
        name: "audiobox", "videoalign", "imagebind" or "synchformer".
        device: device of the network.
        dtype: dtype of the network.
    """
    builders: dict[str, Callable[[str, torch.dtype], Reward]] = {
        "audiobox": _audiobox,
        "videoalign": _videoalign,
        "imagebind": _imagebind,
        "synchformer": _synchformer,
    }
    return builders[name](device, dtype)


def _audiobox(device: str, dtype: torch.dtype) -> Reward:
    with torch.device(device):
        network = AestheticsNetwork()
    for name, parameter in network.named_parameters():
        if not name.startswith(FLOAT32_MODULES):
            parameter.data = parameter.data.to(dtype)
    return AudioBoxReward(network)


def _videoalign(device: str, dtype: torch.dtype) -> Reward:
    half = "look " * (PUBLISHED_TEMPLATE_TOKENS // 2)
    template = f"{half}{REWARD_TOKENS[0]} {half}{REWARD_TOKENS[1]} {{text_prompt}} {REWARD_TOKENS[2]}"
    chat = ChatTokenizer(word_tokenizer(), template, has_reward_tokens=True)
    chat.ids = replace(chat.ids, vocabulary_size=PUBLISHED_VOCABULARY)
    config = VideoAlignConfig()
    with torch.device(device):
        network = VideoAlignNetwork(config, chat.ids).to(dtype)
    return VideoAlignReward(network.eval(), chat, config, device)


def _imagebind(device: str, dtype: torch.dtype) -> Reward:
    config = ImageBindConfig()
    tokenizer = TextTokenizer(clip_tokenizer([]), config.text.context_length)
    tokenizer.vocab_size = config.text.vocab_size  # token ids of single bytes suffice
    with torch.device(device):
        network = ImageBind(config, USED).to(dtype)
    return ImageBindReward(ImageBindEncoder(network, tokenizer))


def _synchformer(device: str, dtype: torch.dtype) -> Reward:
    with torch.device(device):
        return SynchformerReward(Synchformer(SynchformerConfig()).to(dtype))
