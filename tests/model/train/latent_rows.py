"""Prepared clips small enough for a step in milliseconds."""

from __future__ import annotations

import json

from datasets import Dataset
from safetensors.torch import save_file

from model.data.latent_dataset import LatentDataset
from model.data.latent_schema import NEGATIVE_TEXT_NAME, dataset_features
from model.train.arguments import FlowMatchingConfig
from tests.small_latents import TRAINING, VIDEO_SHAPE, encoded_rows, negative_text


def make_rows(num_clips=8, video_shape=VIDEO_SHAPE, first=0, num_frames=9):
    rows = encoded_rows(num_clips, [""], first, video_shape, num_frames)
    return [{"clip_id": f"c{first + index}", "prompt": "a red ball"} | row for index, row in enumerate(rows)]


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
    values = TRAINING | {"output_dir": str(folder), "max_steps": 4, "per_device_train_batch_size": 4}
    return FlowMatchingConfig(**(values | changes))


def read_lines(folder):
    return [json.loads(line) for line in (folder / "train_log.jsonl").read_text().splitlines()]
