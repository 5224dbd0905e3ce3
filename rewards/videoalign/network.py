"""The network: transformers' Qwen2-VL vision tower and text model, and a linear head on every token.

Composed rather than subclassed: `from_pretrained` of a subclass leaves most weights random without a word, and the
stock model computes positions that the published one never used (docs/upstream/videoalign.md, sections 3 and 8).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Qwen2VLTextConfig, Qwen2VLTextModel
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLVisionConfig
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel

from rewards.videoalign.config import DIMENSIONS, TextConfig, VideoAlignConfig, VisionConfig
from rewards.videoalign.prompt import TokenIds


class VideoAlignNetwork(nn.Module):
    """Scores of clips in their chats."""

    def __init__(self, config: VideoAlignConfig, tokens: TokenIds) -> None:
        super().__init__()
        self.config = config
        self.tokens = tokens
        self.visual = Qwen2VisionTransformerPretrainedModel(_vision(config.vision_config, config.text_config))
        self.language_model = Qwen2VLTextModel(_text(config.text_config, tokens))
        self.rm_head = nn.Linear(config.text_config.hidden_size, config.output_dim, bias=False)

    def forward(self, input_ids: Tensor, patches: Tensor, grids: Tensor) -> Tensor:
        """Raw scores (B, 3): VQ, MQ, TA.

        Args:
            input_ids: (B, L), padded on the right.
            patches: (patches of all clips, patch_dim), clip after clip.
            grids: (B, 3) patches of each clip in time, height and width.

        Raises:
            ValueError: a row has not three reward tokens, or not as many video tokens as its clip has.
        """
        return pool(self.token_logits(input_ids, patches, grids), input_ids, self.tokens, self.config.pooling)

    def token_logits(self, input_ids: Tensor, patches: Tensor, grids: Tensor) -> Tensor:
        """The head's output, float32 (B, L, output_dim), for every token; undefined at padding.

        No attention mask is needed: attention is causal, so no token sees the padding that follows it.
        """
        embeds = self.language_model.embed_tokens(input_ids)  # (B, L, D)
        is_video = input_ids == self.tokens.video
        wanted = grids.prod(dim=1) // self.config.vision_config.spatial_merge_size**2
        if not torch.equal(is_video.sum(dim=1), wanted):
            raise ValueError(
                f"The rows hold {is_video.sum(dim=1).tolist()} video tokens, but their clips fill {wanted.tolist()}."
            )
        features = self.video_features(patches, grids).to(embeds.dtype)
        embeds = embeds.masked_scatter(is_video[..., None], features)
        # The published model counts text, video and padding alike, in one dimension: no M-RoPE (section 3).
        positions = torch.arange(input_ids.shape[1], device=input_ids.device).expand(3, *input_ids.shape)
        hidden = self.language_model(inputs_embeds=embeds, position_ids=positions, use_cache=False).last_hidden_state
        # In bfloat16 scores of 2 to 4 would come in steps of 1/64, and candidates of a prompt would tie.
        return F.linear(hidden.float(), self.rm_head.weight.float())

    def video_features(self, patches: Tensor, grids: Tensor) -> Tensor:
        """(video tokens of all clips, D); attention stays within a frame pair."""
        return self.visual(patches, grid_thw=grids).pooler_output


def pool(token_logits: Tensor, input_ids: Tensor, tokens: TokenIds, pooling: str) -> Tensor:
    """One value per dimension, (B, 3), from the head's outputs (B, L, output_dim) (section 2).

    "special" reads the outputs at the reward tokens in the order in which they appear, whichever they are: with one
    output each, else output i at token i. "last" reads the last token before the padding, and "mean" averages those
    before that one, as upstream does.

    Raises:
        ValueError: "special", and some row has not exactly three reward tokens.
    """
    if pooling == "special":
        return _pool_special(token_logits, input_ids, tokens)
    length = input_ids.shape[1]
    last = ((input_ids == tokens.pad).int().argmax(dim=1) - 1) % length  # no padding: argmax 0, so the last of all
    if pooling == "last":
        return token_logits[torch.arange(len(last), device=last.device), last]
    before = torch.arange(length, device=last.device) < last[:, None]  # (B, L)
    return (token_logits * before[..., None]).sum(dim=1) / before.sum(dim=1, keepdim=True)


def _pool_special(token_logits: Tensor, input_ids: Tensor, tokens: TokenIds) -> Tensor:
    is_reward = torch.isin(input_ids, torch.tensor(tokens.rewards, device=input_ids.device))
    counts = is_reward.sum(dim=1)
    if not bool((counts == len(DIMENSIONS)).all()):
        raise ValueError(
            f"The rows hold {counts.tolist()} reward tokens, but each needs {len(DIMENSIONS)}, one per score. Check "
            "the prompts and the prompt template for reward tokens."
        )
    selected = token_logits[is_reward].view(-1, len(DIMENSIONS), token_logits.shape[-1])  # (B, 3, output_dim)
    return selected.diagonal(dim1=1, dim2=2) if selected.shape[-1] > 1 else selected.squeeze(-1)


def _vision(config: VisionConfig, text: TextConfig) -> Qwen2VLVisionConfig:
    return Qwen2VLVisionConfig(
        depth=config.depth,
        embed_dim=config.embed_dim,
        num_heads=config.num_heads,
        mlp_ratio=config.mlp_ratio,
        patch_size=config.patch_size,
        spatial_merge_size=config.spatial_merge_size,
        temporal_patch_size=config.temporal_patch_size,
        hidden_size=text.hidden_size,
    )


def _text(config: TextConfig, tokens: TokenIds) -> Qwen2VLTextConfig:
    return Qwen2VLTextConfig(
        vocab_size=tokens.vocabulary_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        rms_norm_eps=config.rms_norm_eps,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": config.rope_theta,
            "mrope_section": list(config.rope_sections),
        },
        bos_token_id=None,  # nothing is generated
        eos_token_id=None,
    )
