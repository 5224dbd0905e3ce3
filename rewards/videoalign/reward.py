"""The reward `videoalign`: visual quality, motion quality and text alignment, by VideoAlign's VideoReward."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from rewards.base import Prompt, Protocol, Reward
from rewards.weights import find_weights, float_dtype

if TYPE_CHECKING:
    from torch import Tensor

    from media.clip import AVClip
    from rewards.videoalign.config import VideoAlignConfig
    from rewards.videoalign.frontend import FramePlan
    from rewards.videoalign.network import VideoAlignNetwork
    from rewards.videoalign.prompt import ChatTokenizer


class VideoAlignReward(Reward):
    """Raw VQ, MQ and TA of a clip. VQ and MQ do not depend on the prompt.

    Both protocols give the same numbers: JavisBench, too, takes the raw VQ and MQ at the checkpoint's own frame rate
    and size, whatever the clip's are, and batching does not change them (docs/upstream/videoalign.md, section 7).
    The rate at which frames are sampled (`fps`, published: 2) is part of model_config.json; scores at different rates
    do not compare.
    """

    name = "videoalign"
    version = "1"
    columns = ("visual_quality", "motion_quality", "text_alignment")
    higher_is_better: ClassVar[dict[str, bool]] = dict.fromkeys(columns, True)
    needs = frozenset({"video", "text"})
    licence = "Apache-2.0 (weights), MIT (code)"
    published = "VideoReward"

    tokens_at_once: ClassVar[int] = 16_384  # of a forward pass, padding included; a longer clip goes alone

    def __init__(
        self, network: VideoAlignNetwork, chat: ChatTokenizer, config: VideoAlignConfig, device: str = "cpu"
    ) -> None:
        self.network = network
        self.chat = chat
        self.config = config
        self.device = device

    @classmethod
    def load(
        cls,
        path: str | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        protocol: Protocol = "correct",
    ) -> Self:
        """Load a folder with model_config.json, prompt_template.txt and checkpoint-N/ (section 8).

        Args:
            path: that folder, one that holds it as VideoReward/, a checkpoint-N in it, or the name of a preset.
            dtype: of the network; frames are prepared in float32.
            protocol: both are the same.

        Raises:
            ValueError: something is missing or does not fit; the message says what, and where to get it.
        """
        from transformers import AutoTokenizer

        from rewards.videoalign.config import read_config
        from rewards.videoalign.prompt import ChatTokenizer, read_template
        from rewards.videoalign.weights import find_checkpoint, load_network

        folder = find_checkpoint(find_weights(path, cls.name, cls.published))
        config = read_config(folder.root)
        template = read_template(folder.root, config.prompt_template_sha256)
        tokenizer_folder = folder.step / "tokenizer"
        if not tokenizer_folder.is_dir():
            raise ValueError(f"{tokenizer_folder} is missing. Fetch or copy it from where {folder.step} came.")
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder, local_files_only=True)
        chat = ChatTokenizer(tokenizer, template, has_reward_tokens=config.pooling == "special")
        network = load_network(folder, config, chat.ids, device, float_dtype(dtype))
        return cls(network.eval().requires_grad_(False), chat, config, device)

    @classmethod
    def companions(cls, weights: Path) -> list[Path]:
        """Settings and texts of the root folder, where a checkpoint-N or a file in one was given."""
        step = weights.parent if weights.is_file() else weights
        outside = [step / "tokenizer"] if weights.is_file() else []
        if weights.is_file() or step.name.startswith("checkpoint-"):
            outside += [step.parent / name for name in ("model_config.json", "config.json", "prompt_template.txt")]
        return outside

    def frames(self, num_frames: int, fps: float) -> Collection[int] | None:
        from rewards.videoalign.frontend import sample_frames

        try:
            return sample_frames(num_frames, fps, self.config.fps, self.config.num_frames)
        except ValueError:
            return None  # `score` raises the error of such a clip

    def score(self, clips: list[AVClip], prompts: list[Prompt]) -> dict[str, Tensor]:
        """Raw scores, float32 (B,) each; those of real clips lie around 3.7, 1.2 and 2.8, by 2 (section 6).

        Raises:
            ValueError: a clip has one frame or a shape that cannot be resized, a prompt holds one of the model's own
                tokens, or a score is not finite.
        """
        import torch

        from core.devices import exact_convolutions
        from rewards.videoalign.batches import Sample, collate, group_by_length
        from rewards.videoalign.frontend import video_patches

        planned = [self._plan(clip, prompt) for clip, prompt in zip(clips, prompts, strict=True)]
        scores = torch.empty(len(clips), len(self.columns))
        with torch.inference_mode(), exact_convolutions():
            for group in group_by_length([len(ids) for _, ids in planned], self.tokens_at_once):
                samples = []
                for index in group:
                    plan, ids = planned[index]
                    patches = video_patches(clips[index], plan, self.config.vision_config, self.device)
                    samples.append(Sample(ids, patches, plan.grid))
                batch = collate(samples, self.chat.ids.pad)
                scores[group] = self.network(batch.input_ids, batch.patches, batch.grids).float().cpu()
        for prompt, row in zip(prompts, scores, strict=True):
            if not bool(row.isfinite().all()):
                raise ValueError(
                    f"The network gave {row.tolist()} for prompt {prompt.prompt_id!r}. Check the weights, and try "
                    "float32."
                )
        return dict(zip(self.columns, scores.unbind(dim=1), strict=True))

    def _plan(self, clip: AVClip, prompt: Prompt) -> tuple[FramePlan, list[int]]:
        from rewards.videoalign.frontend import plan_frames

        try:
            plan = plan_frames(clip, self.config)
            return plan, self.chat.encode(prompt.prompt, plan.num_tokens)
        except ValueError as error:
            raise ValueError(f"Prompt {prompt.prompt_id!r}: {error}") from error
