"""Decoding of prepared pairs to media files, to inspect the training data by eye and ear."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from core.atomic import atomic_write_text
from dpo.data.dataset import PairDataset
from dpo.data.schema import SIDES
from model.data.batches import RowKey
from model.javisdit.pipeline import JointAVPipeline
from model.prepare.check import CHECK_FOLDER, file_name, to_latents, write_latents


def decode_pairs(folder: Path, model: str, device: str, count: int, seed: int) -> list[Path]:
    """Decode `count` pairs of a prepared folder, drawn with `seed`, and write both clips and the caption into check/.

    The pairs of a smaller count are among those of a larger one.

    Returns:
        The mp4 files, `<row>-<pair_id>-chosen.mp4` and `-rejected.mp4`, each with a wav beside it.
    """
    dataset = PairDataset.load(folder)
    rows = dataset.rows.with_format(None).select_columns(["fps", "prompt"])
    pipeline = JointAVPipeline.from_pretrained(model, device=device)
    paths = []
    for row in sorted(np.random.default_rng(seed).permutation(len(dataset))[:count].tolist()):
        pair = dataset[RowKey(row, 0)]
        path = folder / CHECK_FOLDER / f"{row:05d}-{file_name(pair.pair_id)}"
        size = pair.height, pair.width, pair.num_frames
        for side in SIDES:
            latents = to_latents(getattr(pair, side), size, rows[row]["fps"], pipeline.defaults.sample_rate)
            paths.append(write_latents(pipeline, latents, path.with_name(f"{path.name}-{side}")))
        atomic_write_text(path.with_name(f"{path.name}.txt"), rows[row]["prompt"] + "\n")
    return paths
