"""What tests of training on clips and on pairs share: a network, rows and settings for steps in milliseconds."""

from __future__ import annotations

import torch

from model.javisdit.network.transformer import JointDiT, JointDiTConfig

TEXT_DIM, TEXT_LEN = 12, 6
VIDEO_SHAPE, AUDIO_SHAPE = (4, 3, 4, 4), (2, 8, 4)
CONFIG = JointDiTConfig(
    dim=32,
    ffn_dim=48,
    num_heads=2,
    num_layers=2,
    freq_dim=16,
    text_dim=TEXT_DIM,
    text_len=TEXT_LEN,
    video_channels=VIDEO_SHAPE[0],
    audio_channels=AUDIO_SHAPE[0],
)
TRAINING = {
    "learning_rate": 1e-3,
    "warmup_steps": 0,
    "logging_steps": 1,
    "save_strategy": "no",
    "use_cpu": True,
    "disable_tqdm": True,
}


def small_network(seed=0, **changes):
    torch.manual_seed(seed)
    model = JointDiT(JointDiTConfig(**{**vars(CONFIG), **changes}))
    for name in ("head", "audio_head"):  # zero at the start: every prediction would be zero
        if hasattr(model, name):
            torch.nn.init.normal_(model.get_submodule(name).head.weight, std=0.05)
    return model


def encoded_rows(count, prefixes, seed=0, video_shape=VIDEO_SHAPE, num_frames=9):
    """The columns that clips and pairs have in common. Clips have one set of latents, of prefix ""; pairs have two."""
    generator = torch.Generator().manual_seed(seed)

    def draw(shape):
        return torch.randn(shape, generator=generator).flatten().tolist()

    rows = []
    for index in range(count):
        length = 2 + index % 4
        row = {
            "text_embeds": draw((length, TEXT_DIM)),
            "text_length": length,
            "text_dim": TEXT_DIM,
            "video_latents_shape": list(video_shape or ()),
            "audio_latents_shape": list(AUDIO_SHAPE),
            "num_frames": num_frames,
            "height": 32,
            "width": 32,
            "fps": 16.0,
        }
        for prefix in prefixes:
            row[f"{prefix}video_latents"] = draw(video_shape) if video_shape else []
            row[f"{prefix}audio_latents"] = draw(AUDIO_SHAPE)
        rows.append(row)
    return rows


def negative_text(dim=TEXT_DIM, length=TEXT_LEN):
    text = torch.zeros(length, dim)
    text[:3] = torch.randn(3, dim, generator=torch.Generator().manual_seed(99))
    return text
