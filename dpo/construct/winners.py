"""Good clips from which pairs are made: rows of a prepared folder. Imports no torch.

A folder of `model.prepare` gives all its clips, a folder of `dpo.prepare` the winners of its pairs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dpo.data.schema import MODALITIES, SIDES
from model.prepare.parts import Row

_SHARED = ("prompt", "text_embeds", "text_length", "text_dim", "num_frames", "height", "width", "fps")


@dataclass(frozen=True, eq=False)
class Winner:
    """A good clip, encoded.

    Attributes:
        winner_id: id of the clip, unique among the winners.
        columns: columns of the training dataset that winner and loser have in common.
        latents: modality -> float16 latents as they were stored; video (C, T, H, W), audio (C, T, M).
    """

    winner_id: str
    columns: Row
    latents: dict[str, np.ndarray]

    @property
    def duration_s(self) -> float:
        return self.columns["num_frames"] / self.columns["fps"]

    @property
    def size(self) -> tuple[int, int, int]:
        """Height and width in pixels and number of frames."""
        return self.columns["height"], self.columns["width"], self.columns["num_frames"]

    @property
    def text(self) -> np.ndarray:
        """Embedding (length, text_dim) of the caption, float16."""
        return self.columns["text_embeds"].reshape(self.columns["text_length"], self.columns["text_dim"])

    def num_samples(self, sample_rate: int) -> int:
        """Return the length of its sound in samples."""
        return round(self.duration_s * sample_rate)

    def pair(self, pair_id: str, loser: dict[str, np.ndarray]) -> Row:
        """Return the row of a pair; a modality that `loser` lacks is the winner's."""
        row: Row = self.columns | {"pair_id": pair_id, "margin": None}
        for name, latents in self.latents.items():
            row[f"{name}_latents_shape"] = list(latents.shape)
            for side, own in zip(SIDES, (latents, loser.get(name, latents)), strict=True):
                row[f"{side}_{name}_latents"] = own.ravel()
        return row


class Winners:
    """The winners of a prepared folder, memory-mapped, each once."""

    def __init__(self, folder: Path) -> None:
        """Open a folder.

        Raises:
            ValueError: it holds neither clips nor pairs, or is damaged.
        """
        self.folder = folder
        self._table = _open(folder)
        names = set(self._table.column_names)
        kinds = {"clip_id": "", "pair_id": "chosen_"}
        id_column = next((name for name in kinds if name in names), "")
        self._prefix = kinds.get(id_column, "")
        wanted = {*_SHARED, *(f"{self._prefix}{name}_latents" for name in MODALITIES)}
        if not id_column or not wanted <= names:
            raise ValueError(
                f"{folder} holds neither clips nor pairs: give a folder of `python -m model.prepare`, or one of "
                "`python -m dpo.prepare`, whose winners are taken."
            )
        rows: dict[str, int] = {}  # first row of each winner; a candidate may have won several pairs
        for row, name in enumerate(self._table[id_column].to_pylist()):
            rows.setdefault(name.partition(">")[0] if self._prefix else name, row)
        self._rows = list(rows.items())

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Winner:
        winner_id, row = self._rows[index]
        columns = {name: self._value(name, row) for name in _SHARED}
        columns["prompt_id"] = self._value("prompt_id", row) if self._prefix else winner_id
        latents = {
            name: self._value(f"{self._prefix}{name}_latents", row).reshape(self._value(f"{name}_latents_shape", row))
            for name in MODALITIES
        }
        return Winner(winner_id, columns, latents)

    def shapes(self) -> list[tuple[dict[str, tuple[int, ...]], float]]:
        """Return latent shapes by modality and duration in seconds of each winner, without reading latents."""
        columns = {name: self._table[f"{name}_latents_shape"] for name in MODALITIES}
        return [
            (
                {name: tuple(column[row].as_py()) for name, column in columns.items()},
                self._table["num_frames"][row].as_py() / self._table["fps"][row].as_py(),
            )
            for _, row in self._rows
        ]

    def _value(self, name: str, row: int) -> Any:
        value = self._table[name][row]
        return value.values.to_numpy(zero_copy_only=False) if isinstance(value, pa.ListScalar) else value.as_py()


def _open(folder: Path) -> pa.Table:
    state = folder / "state.json"
    if not state.is_file():
        raise ValueError(
            f"{folder} holds no prepared clips or pairs: make them with `python -m model.prepare` or `python -m "
            "dpo.prepare`."
        )
    files = [folder / entry["filename"] for entry in json.loads(state.read_text(encoding="utf-8"))["_data_files"]]
    try:
        tables = [pa.ipc.open_stream(pa.memory_map(str(path))).read_all() for path in files]
    except (OSError, pa.ArrowInvalid) as error:
        raise ValueError(f"{folder} is a damaged dataset ({error}): make it again.") from error
    if not sum(table.num_rows for table in tables):
        raise ValueError(f"{folder} has no rows, so there is no clip to make a pair of: give another folder.")
    return pa.concat_tables(tables)
