"""Prepared clips small enough for a step in milliseconds, and a network that takes them."""

import json

import torch
from datasets import Dataset
from safetensors.torch import save_file

from model.latent_schema import NEGATIVE_TEXT_NAME, dataset_features
from model.training_args import FlowMatchingConfig
from model.training_data import LatentDataset
from model.transformer import JointDiT, JointDiTConfig

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


def small_network(seed=0, **changes):
    torch.manual_seed(seed)
    model = JointDiT(JointDiTConfig(**{**vars(CONFIG), **changes}))
    for name in ("head", "audio_head"):  # zero at the start: every prediction would be zero
        if hasattr(model, name):
            torch.nn.init.normal_(model.get_submodule(name).head.weight, std=0.05)
    return model


def make_rows(num_clips=8, video_shape=VIDEO_SHAPE, first=0, num_frames=9):
    generator = torch.Generator().manual_seed(first)

    def draw(*shape):
        return torch.randn(shape, generator=generator).flatten().tolist()

    return [
        {
            "clip_id": f"c{first + index}",
            "prompt": "a red ball",
            "text_embeds": draw(2 + index % 4, TEXT_DIM),
            "text_length": 2 + index % 4,
            "text_dim": TEXT_DIM,
            "video_latents": draw(*video_shape) if video_shape else [],
            "video_latents_shape": list(video_shape or ()),
            "audio_latents": draw(*AUDIO_SHAPE),
            "audio_latents_shape": list(AUDIO_SHAPE),
            "num_frames": num_frames,
            "height": 32,
            "width": 32,
            "fps": 16.0,
        }
        for index in range(num_clips)
    ]


def negative_text(dim=TEXT_DIM):
    text = torch.zeros(TEXT_LEN, dim)
    text[:3] = torch.randn(3, dim, generator=torch.Generator().manual_seed(99))
    return text


def make_dataset(rows=None, modalities=("video", "audio")):
    rows = make_rows() if rows is None else rows
    return LatentDataset(Dataset.from_list(rows, features=dataset_features()), negative_text(), modalities)


def save_dataset(folder, rows=None):
    folder.mkdir(parents=True)
    rows = make_rows() if rows is None else rows
    Dataset.from_list(rows, features=dataset_features()).save_to_disk(str(folder))
    save_file({"embeds": negative_text(rows[0]["text_dim"])}, folder / NEGATIVE_TEXT_NAME)
    return folder


def settings(folder, **changes):
    values = {
        "output_dir": str(folder),
        "max_steps": 4,
        "learning_rate": 1e-3,
        "warmup_steps": 0,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "per_device_train_batch_size": 4,
    }
    return FlowMatchingConfig(**(values | changes))


def read_lines(folder):
    return [json.loads(line) for line in (folder / "train_log.jsonl").read_text().splitlines()]
