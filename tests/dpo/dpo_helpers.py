"""Pairs and groups so small that a step takes milliseconds, and trainers for them."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
from datasets import Dataset, Features
from peft import LoraConfig
from safetensors.torch import save_file

from dpo.data.dataset import PairDataset
from dpo.data.group_dataset import GroupDataset
from dpo.data.groups import RewardColumn
from dpo.data.schema import NEGATIVE_TEXT_NAME, REWARDS_NAME, dataset_features, group_features
from dpo.train.config import AVDPOConfig, NFTConfig
from dpo.train.nft_trainer import NFTTrainer
from dpo.train.trainer import AVDPOTrainer
from model.presets import preset_path
from model.train.freezing import LORA_TARGET_MODULES
from tests.small_latents import TEXT_LEN, TRAINING, VIDEO_SHAPE, encoded_rows, negative_text, small_network

GROUP_REWARDS = {
    "visual_quality": RewardColumn(True, "video"),
    "audio_quality": RewardColumn(True, "audio"),
    "desync": RewardColumn(False, "audio_video"),
}


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


def make_group_rows(num_groups=3, group_size=4, seed=0, video_shape=VIDEO_SHAPE, first_id=0, scores=None):
    """Candidates with random latents; `scores` (N, rewards of GROUP_REWARDS), random by default."""
    count = num_groups * group_size
    rows = encoded_rows(count, [""], seed, video_shape)
    if scores is None:
        scores = np.random.default_rng(seed).normal(size=(count, len(GROUP_REWARDS)))
    made = []
    for number, (row, values) in enumerate(zip(rows, scores, strict=True)):
        prompt, text = f"p{first_id + number // group_size}", rows[number - number % group_size]
        row |= {name: text[name] for name in ("text_embeds", "text_length", "text_dim")}
        row |= {"candidate_id": f"{prompt}/{number % group_size}", "prompt_id": prompt, "prompt": "a ball"}
        row |= {"is_ground_truth": False, "seed": number, "model": "tiny", "guidance_scale": 1.0}
        row["num_inference_steps"] = 4
        made.append(row | dict(zip(GROUP_REWARDS, map(float, values), strict=True)))
    return made


def make_groups(rows=None, rewards=None):
    rows, rewards = make_group_rows() if rows is None else rows, rewards or GROUP_REWARDS
    features = Features(group_features(tuple(GROUP_REWARDS)))
    return GroupDataset(Dataset.from_list(rows, features=features), negative_text(), rewards)


def identical_pairs(rows):
    return [row | {f"rejected_{m}_latents": row[f"chosen_{m}_latents"] for m in ("video", "audio")} for row in rows]


def lora(**changes):
    return LoraConfig(**({"r": 4, "lora_alpha": 4, "target_modules": list(LORA_TARGET_MODULES)} | changes))


def make_trainer(folder, rows=None, model=None, peft_config=None, eval_rows=None, **settings):
    values = TRAINING | {"output_dir": str(folder), "max_steps": 2, "per_device_train_batch_size": 2}
    return AVDPOTrainer(
        model or tiny_model(),
        AVDPOConfig(**(values | settings)),
        make_dataset(rows),
        eval_dataset=None if eval_rows is None else make_dataset(eval_rows),
        peft_config=lora() if peft_config is None else peft_config or None,
    )


def make_nft_trainer(folder, rows=None, model=None, peft_config=None, eval_rows=None, **settings):
    values = TRAINING | {"output_dir": str(folder), "max_steps": 2, "per_device_train_batch_size": 4}
    return NFTTrainer(
        model or tiny_model(),
        NFTConfig(**(values | settings)),
        make_groups(rows),
        eval_dataset=None if eval_rows is None else make_groups(eval_rows),
        peft_config=lora() if peft_config is None else peft_config or None,
    )


def save_groups(folder, rows, text_len=TEXT_LEN):
    """Write a training dataset of candidates like that of `dpo.prepare`."""
    folder.mkdir(parents=True)
    features = Features(group_features(tuple(GROUP_REWARDS)))
    Dataset.from_list(rows, features=features).save_to_disk(str(folder))
    save_file({"embeds": negative_text(rows[0]["text_dim"], text_len)}, folder / NEGATIVE_TEXT_NAME)
    rewards = {name: asdict(reward) for name, reward in GROUP_REWARDS.items()}
    (folder / REWARDS_NAME).write_text(json.dumps(rewards))
    return folder


def save_rows(folder, rows, text_len=TEXT_LEN):
    """Write a training dataset like that of `dpo.prepare`; `text_len` is that of the model."""
    folder.mkdir(parents=True)
    Dataset.from_list(rows, features=Features(dataset_features())).save_to_disk(str(folder))
    save_file({"embeds": negative_text(rows[0]["text_dim"], text_len)}, folder / NEGATIVE_TEXT_NAME)
    return folder


def save_model(folder, network):
    """Write a model folder with the codecs and the text encoder of the tiny preset, which training does not use."""
    network.save_pretrained(folder / "transformer")
    parts = {name: str(preset_path("tiny") / name) for name in ("video_codec", "audio_codec", "text_encoder")}
    (folder / "pipeline.json").write_text(json.dumps({"components": parts, "defaults": {"num_inference_steps": 2}}))
    return folder
