"""Checks of a training dataset before the first step; each fault raises a ValueError that names the row."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset, load_from_disk
from torch import Tensor

from dpo.data.schema import MODALITIES, DatasetForm
from model.javisdit.network.config import JointDiTConfig

ROWS_AT_ONCE = 1024  # rows per batch when only the offsets of list columns are read
ROWS_OF_VALUES = 4  # rows per batch when values are read: 70 MB at 480p


def check_columns(rows: Dataset, source: str, form: DatasetForm) -> None:
    """Raise ValueError unless there are rows, all columns are present and every key is unique."""
    missing = [name for name in form.columns if name not in rows.column_names]
    if missing:
        raise ValueError(
            f"{source} lacks the columns {', '.join(missing)}, so it is no training dataset of {form.item}s "
            f"({form.other}): make one with `python -m dpo.prepare`."
        )
    if not len(rows):
        raise no_rows(source, form)
    keys = rows.with_format(None).select_columns(form.key).to_dict()[form.key]
    [(key, count)] = Counter(keys).most_common(1)
    if count > 1:
        raise ValueError(
            f"{source} has {form.item} {key!r} {count} times, but the random draws of a {form.item} depend on its id: "
            "keep one."
        )


def open_rows(folder: Path, form: DatasetForm) -> Dataset:
    """Open the rows of a training dataset on disk, memory-mapped.

    Raises:
        ValueError: if the folder holds no training dataset, or a damaged or empty one.
    """
    state = folder / "state.json"
    if not state.is_file():
        raise ValueError(f"{folder} holds no training dataset: make one with `python -m dpo.prepare`.")
    if not json.loads(state.read_text(encoding="utf-8"))["_data_files"]:
        raise no_rows(str(folder), form)  # a dataset without rows has no data file, and `datasets` cannot open it
    try:
        return cast(Dataset, load_from_disk(str(folder)))
    except FileNotFoundError as error:
        raise ValueError(f"{folder} is damaged: {error.filename or error} is missing; prepare it again.") from error


def no_rows(source: str, form: DatasetForm) -> ValueError:
    """Return the error for a dataset without rows."""
    return ValueError(
        f"{source} has no {form.item}s, so there is nothing to learn: {form.reasons}; sample more prompts or "
        "candidates."
    )


def check_shapes(rows: Dataset, source: str, form: DatasetForm) -> None:
    """Raise ValueError unless every list has the length that its shape columns give."""
    table = rows.with_format("arrow")
    for start in range(0, len(rows), ROWS_AT_ONCE):
        batch = table[start : start + ROWS_AT_ONCE]
        wanted = {
            column: [math.prod(shape) for shape in batch[f"{name}_latents_shape"].to_pylist()]
            for column, (name, _) in form.latents.items()
        }
        texts = zip(batch["text_length"].to_pylist(), batch["text_dim"].to_pylist(), strict=True)
        wanted["text_embeds"] = [length * dim for length, dim in texts]
        for column, sizes in wanted.items():
            lengths = pc.list_value_length(batch[column]).to_pylist()  # does not read the values
            for key, length, size in zip(batch[form.key].to_pylist(), lengths, sizes, strict=True):
                if length != size:
                    raise ValueError(
                        f"{source}: {form.item} {key!r} has {length} values in {column}, but its shape columns "
                        f"give {size}: the dataset is damaged; prepare it again."
                    )


def check_finite(rows: Dataset, source: str, form: DatasetForm) -> None:
    """Raise ValueError if a value is NaN or infinite; reads every row once."""
    names = {column: words for column, (_, words) in form.latents.items()} | {"text_embeds": "text"}
    table = rows.with_format("arrow")
    for start in range(0, len(rows), ROWS_OF_VALUES):
        batch = table[start : start + ROWS_OF_VALUES]
        for column, what in names.items():
            for offset, values in enumerate(batch[column]):
                if not np.isfinite(values.values.to_numpy(zero_copy_only=False)).all():
                    raise ValueError(
                        f"{source}: {form.item} {batch[form.key][offset].as_py()!r} (row {start + offset}) has "
                        f"non-finite values in its {what} data, which would turn the whole model into NaN: remove the "
                        f"{form.item}, or prepare it again."
                    )


def check_network(rows: Dataset, source: str, form: DatasetForm, config: JointDiTConfig) -> None:
    """Raise ValueError if a row's sizes show that other codecs or another text encoder than the network's made it."""
    columns = [*(f"{name}_latents_shape" for name in MODALITIES), "text_dim", "text_length"]
    table = rows.with_format(None).select_columns([form.key, *columns]).to_dict()
    sizes = zip(*(map(_hashable, table[column]) for column in columns), strict=True)
    first = {size: key for key, size in reversed(list(zip(table[form.key], sizes, strict=True)))}
    for (*shapes, text_dim, text_length), key in reversed(first.items()):
        where, latents = f"{source}: {form.item} {key!r}", dict(zip(MODALITIES, shapes, strict=True))
        _check_channels(where, {name: shape[0] for name, shape in latents.items()} | {"text": text_dim}, config)
        for spec in config.specs:
            size = latents[spec.name][1:]
            if len(size) != len(spec.patch) or not all(n and n % p == 0 for n, p in zip(size, spec.patch, strict=True)):
                raise ValueError(
                    f"{where} has {spec.name} latents of size {size}, which do not split into the model's patches of "
                    f"{spec.patch}: sample and prepare clips with another size."
                )
        if text_length > config.text_len:
            raise ValueError(
                f"{where} has a caption of {text_length} tokens, but the model takes at most {config.text_len}: the "
                "data was prepared for another model; run `python -m dpo.prepare` with this one."
            )


def check_negative_text(negative_text: Tensor, source: str, config: JointDiTConfig) -> None:
    """Raise ValueError unless the negative prompt, which replaces dropped captions, is padded to the text length."""
    expected = (config.text_len, config.text_dim)
    if tuple(negative_text.shape) != expected:
        raise ValueError(
            f"{source} has a negative prompt of {tuple(negative_text.shape)} (tokens, channels), the model expects "
            f"{expected}: the data was prepared for another model; run `python -m dpo.prepare` with this one."
        )


def _check_channels(where: str, found: dict[str, int], config: JointDiTConfig) -> None:
    expected = {spec.name: spec.channels for spec in config.specs} | {"text": config.text_dim}
    for name, value in found.items():
        if expected.get(name) != value:
            raise ValueError(
                f"{where} has {value} {name} channels, the model expects {expected.get(name, 'none')}: the "
                "data was prepared for another model; run `python -m dpo.prepare` with this one."
            )


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
