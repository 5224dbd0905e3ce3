"""A ranked run with empty clip files, made once and copied for each test."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from core.schema import CANDIDATES, SCORES, with_metadata, write_table
from pipeline.rank.command import rank
from pipeline.rank.config import RankConfig
from tests.pipeline.rank.ranking_tables import random_table
from tests.pipeline.rank.test_rank_stage import write_tables

SETTINGS = {"model": "weights 0123456789ab", "seed": 7, "num_candidates": 3, "num_frames": None}
REWARDS = {
    "imagebind": {"version": "3", "weights": "ba9876543210", "path": "/home/ann/weights"},
    "my_reward": {"version": "0.1", "weights": None, "path": None},
}


@pytest.fixture
def run(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(_ranked(tmp_path_factory.getbasetemp() / "ranked"), tmp_path / "runs" / "first")


@functools.cache
def _ranked(folder: Path) -> Path:
    folder.mkdir()
    table = random_table()
    write_tables(folder, table)
    made_by = {"avdpo.rewards": json.dumps(REWARDS), "avdpo.protocol": "javisbench"}
    for schema, name, extra in (
        (CANDIDATES, "candidates", {"avdpo.settings": json.dumps(SETTINGS)}),
        (SCORES, "scores", made_by),
    ):
        path = folder / name / f"{name}.parquet"
        write_table(with_metadata(pq.read_table(path), extra), schema, path)
    (folder / "candidates" / "config.yaml").write_text("model: /home/ann/models/javis-sft\n")
    rank(RankConfig(output_dir=folder))
    (folder / "candidates" / "media").mkdir()
    for row in range(len(table)):
        for suffix in ("mp4", "wav"):
            (folder / "candidates" / "media" / f"{row}.{suffix}").write_text(f"{row} {suffix}")
    return folder
