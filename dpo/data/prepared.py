"""The training dataset on disk, shared by pairs and groups: its rows, its checks and its batches.

The draws of a batch (timestep, noise, text dropout) are a function of (seed, id, epoch), so a row gets the same draws
in any batch, on any worker, before and after a restart.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np
import torch
from datasets import Dataset
from safetensors.torch import load_file
from torch import Tensor

from core.stage_state import finished_summary
from dpo.data import checks as data_checks
from dpo.data.schema import ENCODERS_NAME, MODALITIES, NEGATIVE_TEXT_NAME, DatasetForm
from model.data.draws import Draw, draw, stack_texts
from model.javisdit.network.config import JointDiTConfig
from model.javisdit.network.transformer import JointDiT
from model.javisdit.weights.folders import encoders_identity

Item = TypeVar("Item")


class PreparedRows(torch.utils.data.Dataset[Item], Generic[Item]):
    """A training dataset in a folder written by `python -m dpo.prepare`. Columns and shapes are checked on opening."""

    form: ClassVar[DatasetForm]
    clips_per_row: ClassVar[int]

    def __init__(
        self, rows: Dataset, negative_text: Tensor | None, source: str = "the dataset", is_finite: bool = False
    ) -> None:
        """Check the rows and store them.

        Args:
            rows: the rows, with the columns of `form`.
            negative_text: padded embedding of the negative prompt, (text_len, text_dim), zero on padding.
            source: name of the dataset in error messages.
            is_finite: true if every value was checked to be finite when it was written.

        Raises:
            ValueError: if there are no rows, a key occurs twice, columns are missing, or latents do not match their
                shape columns.
        """
        self.rows = rows.with_format("numpy")
        self.negative_text = negative_text
        self.source = source
        self._is_finite = is_finite
        data_checks.check_columns(rows, source, self.form)
        data_checks.check_shapes(rows, source, self.form)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Open a folder written by `python -m dpo.prepare`, memory-mapped."""
        folder = Path(folder)
        rows = data_checks.open_rows(folder, cls.form)
        negative = folder / NEGATIVE_TEXT_NAME
        text = load_file(negative)["embeds"].float() if negative.is_file() else None
        return cls._open(folder, rows, text, finished_summary(folder) is not None)

    @classmethod
    def _open(cls, folder: Path, rows: Dataset, negative_text: Tensor | None, is_finite: bool) -> Self:
        return cls(rows, negative_text, str(folder), is_finite)

    def __len__(self) -> int:
        return len(self.rows)

    def labels(self, epoch: int) -> Sequence[Hashable]:
        """Return a label per row; only rows with equal labels share a batch. The labels are the same in every epoch."""
        return self.shapes

    def num_tokens(self, label: Any, config: JointDiTConfig) -> int:
        """Return the number of tokens of one row with this label, of all its clips together."""
        sizes = dict(zip(MODALITIES, (label[1:4], label[5:7]), strict=True))  # latent sizes without channels
        return self.clips_per_row * config.num_tokens(sizes)

    def batch_size(self, label: Any) -> int | None:
        """Return None: labels do not set the size of a batch."""
        return None

    def check_model(self, name_or_path: str | Path) -> None:
        """Raise ValueError if a model has other codecs or another text encoder than those that made the data.

        Data that `dpo.prepare` did not make has no record of them and passes.
        """
        path = Path(self.source) / ENCODERS_NAME
        if not path.is_file():
            return
        made_by = json.loads(path.read_text(encoding="utf-8"))
        if encoders_identity(name_or_path) != made_by["identity"]:
            raise ValueError(
                f"{self.source} was made by the codecs and the text encoder of {made_by['model']}, but {name_or_path} "
                f"has others: run `python -m dpo.prepare` with it (or delete {path}, if only the files are different)."
            )

    @cached_property
    def shapes(self) -> list[tuple[int, ...]]:
        """Latent shapes and clip geometry of each row, flattened; they must be equal within a batch.

        Order: video (C, T, H, W), audio (C, T, M), num_frames, height, width.
        """
        columns = [*(f"{name}_latents_shape" for name in MODALITIES), "num_frames", "height", "width"]
        table = self.rows.select_columns(columns).with_format(None).to_dict()
        return [
            tuple(size for value in row for size in (value if isinstance(value, list) else [value]))
            for row in zip(*(table[column] for column in columns), strict=True)
        ]

    @property
    def fingerprint(self) -> str:
        """Text that changes with the rows."""
        return str(self.rows._fingerprint)

    def check_finite(self) -> None:
        """Raise a ValueError that names the first row with a NaN or infinite value.

        Reads every row once; data of `dpo.prepare` is not read, because its values were checked when written.
        """
        if not self._is_finite:
            data_checks.check_finite(self.rows, self.source, self.form)

    def check_network(self, network: JointDiT | JointDiTConfig) -> None:
        """Raise ValueError if sizes show that other codecs or another text encoder than the network's made the data."""
        config = network if isinstance(network, JointDiTConfig) else network.config
        data_checks.check_network(self.rows, self.source, self.form, config)
        if self.negative_text is not None:
            data_checks.check_negative_text(self.negative_text, self.source, config)


class Drawn(Protocol):
    """Interface of a row for which `DrawingCollator` makes draws."""

    @property
    def epoch(self) -> int: ...

    @property
    def text(self) -> Tensor:
        """The embedding (length, text_dim) of the caption, unpadded."""

    @property
    def size(self) -> tuple[int, int, int]:
        """Height and width in pixels and number of frames."""

    @property
    def num_frames(self) -> int: ...


class DrawingCollator:
    """Base of the collators: draws by (seed, id, epoch), and captions with text dropout."""

    def __init__(
        self,
        seed: int,
        negative_text: Tensor | None,
        text_dropout: float = 0.1,
        shift_scale: float = 5.0,
        text_len: int | None = None,
    ) -> None:
        """Store the settings of the batches and their draws.

        Args:
            seed: seed of the run.
            negative_text: padded embedding of the negative prompt (text_len, text_dim), which replaces dropped
                captions, as published.
            text_dropout: probability that a caption is dropped.
            shift_scale: scale of the timestep shift, see `model.flow.shift_ratio`.
            text_len: length to which captions are padded, by default that of the negative text. The network attends
                to padding, so the length must not depend on the batch.

        Raises:
            ValueError: if text_dropout is positive without a negative text.
        """
        if text_dropout > 0 and negative_text is None:
            raise ValueError(
                f"text_dropout is {text_dropout}, but the dataset has no {NEGATIVE_TEXT_NAME} to replace a dropped "
                "caption: prepare it again, or set text_dropout to 0."
            )
        self.seed = seed
        self.negative_text = None if negative_text is None else negative_text[negative_text.any(1)]  # unpadded
        self.text_len = text_len or (None if negative_text is None else len(negative_text))
        self.text_dropout = text_dropout
        self.shift_scale = shift_scale

    def draw(self, item: Drawn, sample_id: str, latents: Mapping[str, Tensor]) -> Draw:
        """Return the draws of an item under an id, for the shapes of its latents."""
        shapes = {name: latents[name].shape for name in MODALITIES}
        return draw(self.seed, sample_id, item.epoch, shapes, item.size, self.text_dropout, self.shift_scale)

    def drawn(self, items: Sequence[Drawn], draws: Sequence[Draw]) -> dict[str, Any]:
        """Return the parts of a batch that the draws decide: noise, timestep, captions with their mask and dropout."""
        dropped = torch.tensor([one.text_dropped for one in draws])
        text, mask = self._texts(items, dropped)
        batch: dict[str, Any] = {
            f"{name}_noise": torch.stack([one.noise[name] for one in draws]) for name in MODALITIES
        }
        return batch | {
            "timestep": torch.stack([one.timestep for one in draws]),
            "text": text,
            "text_mask": mask,
            "text_dropped": dropped,
            "num_frames": items[0].num_frames,
            "epoch": [item.epoch for item in items],
        }

    def _texts(self, items: Sequence[Drawn], dropped: Tensor) -> tuple[Tensor, Tensor]:
        texts = [item.text for item in items]
        for row in dropped.nonzero().flatten().tolist():
            assert self.negative_text is not None
            texts[row] = self.negative_text
        return stack_texts(texts, self.text_len or max(map(len, texts)))


def shaped(values: np.ndarray, shape: Sequence[int]) -> Tensor:
    """Return a flat column as a float32 tensor of its shape."""
    return torch.from_numpy(np.asarray(values, dtype=np.float32).reshape(tuple(int(size) for size in shape)))
