"""Decoding of prepared clips to media files, to inspect the training data by eye and ear."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from core.atomic import atomic_write_text
from dpo.data.dataset import Pair, PairDataset
from dpo.data.group_dataset import GroupDataset
from dpo.data.schema import SIDES
from model.data.batches import RowKey
from model.javisdit.pipeline import JointAVPipeline
from model.prepare.check import CHECK_FOLDER, file_name, to_latents, write_latents


def decode_rows(dataset: PairDataset | GroupDataset, model: str, device: str, count: int, seed: int) -> list[Path]:
    """Decode `count` rows of a prepared folder, drawn with `seed`, and write their clips and captions into its check/.

    The rows of a smaller count are among those of a larger one.

    Returns:
        The mp4 files, each with a wav beside it: `<row>-<pair_id>-chosen.mp4` and `-rejected.mp4` of pairs,
        `<row>-<candidate_id>.mp4` of candidates.
    """
    columns = [dataset.form.key, "fps", "prompt"]
    rows = dataset.rows.with_format(None).select_columns(columns)
    pipeline = JointAVPipeline.from_pretrained(model, device=device)
    paths = []
    for number in sorted(np.random.default_rng(seed).permutation(len(dataset))[:count].tolist()):
        item, (key, fps, prompt) = dataset[RowKey(number, 0)], (rows[number][column] for column in columns)
        clips = {f"-{side}": getattr(item, side) for side in SIDES} if isinstance(item, Pair) else {"": item.latents}
        path = Path(dataset.source) / CHECK_FOLDER / f"{number:05d}-{file_name(key)}"
        for ending, tensors in clips.items():
            latents = to_latents(tensors, item.size, fps, pipeline.defaults.sample_rate)
            paths.append(write_latents(pipeline, latents, path.with_name(f"{path.name}{ending}")))
        atomic_write_text(path.with_name(f"{path.name}.txt"), prompt + "\n")
    return paths
