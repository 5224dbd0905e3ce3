"""Pairs small enough for a step in milliseconds, and a trainer of them."""

from datasets import Dataset, Features
from peft import LoraConfig

from dpo.config import LORA_TARGET_MODULES, AVDPOConfig
from dpo.data import PairDataset
from dpo.schema import dataset_features
from dpo.trainer import AVDPOTrainer
from tests.small_latents import TRAINING, VIDEO_SHAPE, encoded_rows, negative_text, small_network


def tiny_model(seed=0):
    return small_network(seed).eval()


def make_rows(num_pairs=4, seed=0, video_shape=VIDEO_SHAPE, first_id=0, **changes):
    rows = encoded_rows(num_pairs, ["chosen_", "rejected_"], seed, video_shape)
    ids = [
        {"pair_id": f"p{n}", "prompt_id": f"p{n}", "prompt": "a ball", "margin": 1.0}
        for n in range(first_id, first_id + num_pairs)
    ]
    return [one | row | changes for one, row in zip(ids, rows, strict=True)]


def make_dataset(rows=None):
    rows = make_rows() if rows is None else rows
    return PairDataset(Dataset.from_list(rows, features=Features(dataset_features())), negative_text())


def identical_pairs(rows):
    return [row | {f"rejected_{m}_latents": row[f"chosen_{m}_latents"] for m in ("video", "audio")} for row in rows]


def lora(**changes):
    return LoraConfig(**({"r": 4, "lora_alpha": 4, "target_modules": list(LORA_TARGET_MODULES)} | changes))


def make_trainer(folder, rows=None, model=None, peft_config=None, **settings):
    values = TRAINING | {"output_dir": str(folder), "max_steps": 2, "per_device_train_batch_size": 2}
    return AVDPOTrainer(
        model or tiny_model(),
        AVDPOConfig(**(values | settings)),
        make_dataset(rows),
        peft_config=lora() if peft_config is None else peft_config or None,
    )
