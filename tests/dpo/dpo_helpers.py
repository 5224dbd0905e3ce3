"""A network and pairs small enough for a step in milliseconds."""

import torch
from datasets import Dataset, Features
from peft import LoraConfig

from dpo.config import LORA_TARGET_MODULES, AVDPOConfig
from dpo.data import PairDataset
from dpo.prepare import dataset_features
from dpo.trainer import AVDPOTrainer
from model.transformer import JointDiT, JointDiTConfig

TEXT_DIM, TEXT_LEN = 12, 6
VIDEO_SHAPE, AUDIO_SHAPE = (4, 3, 4, 4), (2, 8, 4)


def tiny_model(seed=0):
    torch.manual_seed(seed)
    config = JointDiTConfig(
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
    model = JointDiT(config)
    for name in ("head", "audio_head"):  # zero at the start: every prediction would be zero
        torch.nn.init.normal_(model.get_submodule(name).head.weight, std=0.05)
    return model.eval()


def make_rows(num_pairs=4, seed=0, video_shape=VIDEO_SHAPE, first_id=0, **changes):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=generator).flatten().tolist()

    rows = []
    for i in range(num_pairs):
        length = 2 + i % 4
        row = {
            "prompt_id": f"p{first_id + i}",
            "text_embeds": draw(length, TEXT_DIM),
            "text_length": length,
            "text_dim": TEXT_DIM,
            "video_latents_shape": list(video_shape),
            "audio_latents_shape": list(AUDIO_SHAPE),
            "num_frames": 9,
            "height": 32,
            "width": 32,
            "fps": 16.0,
        }
        for side in ("chosen", "rejected"):
            row[f"{side}_video_latents"] = draw(*video_shape)
            row[f"{side}_audio_latents"] = draw(*AUDIO_SHAPE)
        rows.append(row | changes)
    return rows


def negative_text():
    text = torch.zeros(TEXT_LEN, TEXT_DIM)
    text[:3] = torch.randn(3, TEXT_DIM, generator=torch.Generator().manual_seed(99))
    return text


def make_dataset(rows=None):
    rows = make_rows() if rows is None else rows
    return PairDataset(Dataset.from_list(rows, features=Features(dataset_features())), negative_text())


def identical_pairs(rows):
    return [row | {f"rejected_{m}_latents": row[f"chosen_{m}_latents"] for m in ("video", "audio")} for row in rows]


def lora(**changes):
    return LoraConfig(**({"r": 4, "lora_alpha": 4, "target_modules": list(LORA_TARGET_MODULES)} | changes))


def make_trainer(folder, rows=None, model=None, peft_config=None, **settings):
    config = AVDPOConfig(
        output_dir=str(folder),
        **(
            {
                "max_steps": 2,
                "learning_rate": 1e-3,
                "warmup_steps": 0,
                "logging_steps": 1,
                "save_strategy": "no",
                "use_cpu": True,
                "disable_tqdm": True,
                "per_device_train_batch_size": 2,
            }
            | settings
        ),
    )
    return AVDPOTrainer(
        model or tiny_model(),
        config,
        make_dataset(rows),
        peft_config=lora() if peft_config is None else peft_config or None,
    )
