"""The data of the report's page: the columns of the pairs in a compact form, and the metrics to draw.

Numbers are stored as little-endian float32 in base64 (NaN where missing). The page decodes them into typed arrays,
which take a tenth of the memory of JavaScript's numbers and let it filter 25,000 rows in milliseconds.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.ids import fingerprint
from core.schema import PAIRS, keyed_pairs_schema, validate
from pipeline.rank.pairs_folder import is_dataset, read_dataset
from rewards.metrics import HIGHER_IS_BETTER, METRIC_COLUMNS, MODALITY_METRICS

SIDES = ("chosen", "rejected")
MARGINS = ("margin", *(f"margin_{modality}" for modality in MODALITY_METRICS))
LABELS = {
    "ib_tv": "Text-video match",
    "ib_ta": "Text-audio match",
    "ib_av": "Audio-video match",
    "desync": "Desync (s)",
    "audio_video": "Audio-video",
    **{f"{modality}_score": "Score" for modality in MODALITY_METRICS},
}

Paths = list[str | None]  # paths of clips, relative to the run's folder


@dataclass(frozen=True)
class Metric:
    """A metric that a card draws as two bars. `low` and `high` are its extremes over both sides of the dataset."""

    name: str
    label: str
    modality: str | None  # None: shown for information, not used in the ranking
    higher_is_better: bool
    low: float | None
    high: float | None


def read_pairs(pairs_dir: Path) -> pa.Table:
    """Read the pairs of `python -m pipeline.rank`. Raises ValueError if there are none or columns are missing."""
    if not is_dataset(pairs_dir):
        raise ValueError(
            f"{pairs_dir} holds no pairs dataset, so there is nothing to show. Run `python -m pipeline.rank`."
        )
    table = read_dataset(pairs_dir)
    sided = ("candidate_id", "video_path", "is_ground_truth", *(f"{modality}_score" for modality in MODALITY_METRICS))
    wanted = ["prompt_id", "prompt", *MARGINS, *(f"{side}_{name}" for side in SIDES for name in sided)]
    missing = [name for name in wanted if name not in table.column_names]
    if missing:
        raise ValueError(
            f"{pairs_dir} lacks the columns {', '.join(missing)}, which the report shows. "
            "Make the pairs with `python -m pipeline.rank`, or add these columns."
        )
    schema = keyed_pairs_schema(()) if "pair_id" in table.column_names else PAIRS
    return validate(table, schema, pairs_dir)


def clip_paths(pairs: pa.Table, output_dir: Path) -> dict[str, Paths]:
    """Return the clips of the pairs by column (`chosen_video`, ...), as paths relative to `output_dir`.

    Raises:
        ValueError: a path points outside `output_dir`.
    """
    columns = {f"{side}_{kind}": f"{side}_{kind}_path" for side in SIDES for kind in ("video", "audio")}
    return {
        name: [
            None if path is None else _inside(path, output_dir, column, row)
            for row, path in enumerate(_values(pairs, column))
        ]
        for name, column in columns.items()
    }


def page_data(
    pairs: pa.Table,
    output_dir: Path,
    paths: dict[str, Paths],
    *,
    thumbnails: set[str],
    thumbnail_folder: str,
    choices: dict[str, set[str]],
) -> dict[str, Any]:
    """Build the data that the page's script reads, as JSON values.

    Args:
        paths: the result of `clip_paths`.
        thumbnails: the paths that have a thumbnail.
        thumbnail_folder: name of the folder of thumbnails, which is beside the page.
        choices: the result of `choices_of_others`.
    """
    metrics = _metrics(pairs, _directions(output_dir / "scores" / "scores.parquet"))
    scores = [_metric(pairs, f"{name}_score", name, True) for name in MODALITY_METRICS]
    modalities = zip(MODALITY_METRICS, scores, strict=True)
    return {
        "dataset": _identity(pairs),
        "modalities": [{"name": name, "label": label(name), "score": asdict(score)} for name, score in modalities],
        "metrics": [asdict(metric) for metric in metrics],
        "strategies": list(choices),
        "thumbnail_folder": thumbnail_folder,
        "numbers": _numbers(pairs, [metric.name for metric in (*scores, *metrics)]),
        "columns": _texts(pairs) | _urls(paths) | _flags(pairs, paths, thumbnails) | _chosen_by(pairs, choices),
    }


def label(name: str) -> str:
    """Return the name that the page shows for a column."""
    return LABELS.get(name, name.replace("_", " ").capitalize())


def _values(pairs: pa.Table, column: str) -> list[Any]:
    return pairs[column].to_pylist() if column in pairs.column_names else [None] * len(pairs)


def _identity(pairs: pa.Table) -> str:
    """Return a fingerprint of the compared candidates. A browser stores labels under it, apart from other datasets'."""
    columns = (pairs[f"{side}_candidate_id"].to_pylist() for side in SIDES)
    return fingerprint("\0".join(text for column in columns for text in column))


def _directions(scores_path: Path) -> dict[str, bool]:
    """Return whether higher is better, per metric. For third-party rewards only the scores table states it."""
    scores = pq.read_schema(scores_path) if scores_path.is_file() else pa.schema([])
    stated = {item.name: item.metadata[b"higher_is_better"] for item in scores if item.metadata}
    return HIGHER_IS_BETTER | {name: value == b"true" for name, value in stated.items()}


def _metrics(pairs: pa.Table, directions: dict[str, bool]) -> list[Metric]:
    """List the metrics scored on both sides: ranked ones by modality, then other known ones, then third-party ones."""
    modality_of = {name: modality for modality, names in MODALITY_METRICS.items() for name in names}
    floats = {column.name for column in pairs.schema if pa.types.is_floating(column.type)}
    chosen, rejected = ({name.removeprefix(f"{side}_") for name in floats if name.startswith(side)} for side in SIDES)
    scored = (chosen & rejected) - {f"{modality}_score" for modality in MODALITY_METRICS}
    names = dict.fromkeys((*modality_of, *METRIC_COLUMNS, *sorted(scored)))  # in this order, each once
    metrics = [
        _metric(pairs, name, modality_of.get(name), directions.get(name, True)) for name in names if name in scored
    ]
    return [metric for metric in metrics if metric.low is not None]


def _metric(pairs: pa.Table, name: str, modality: str | None, higher_is_better: bool) -> Metric:
    both = np.concatenate([_floats(pairs, f"{side}_{name}") for side in SIDES])
    known = both[~np.isnan(both)]
    return Metric(
        name=name,
        label=label(name),
        modality=modality,
        higher_is_better=higher_is_better,
        low=float(known.min()) if known.size else None,
        high=float(known.max()) if known.size else None,
    )


def _floats(pairs: pa.Table, column: str) -> np.ndarray:
    """Return a column as float32 (P,), with NaN for null."""
    return pairs[column].to_numpy().astype("<f4")


def _numbers(pairs: pa.Table, metric_names: Sequence[str]) -> dict[str, str]:
    names = [*MARGINS, *(f"{side}_{name}" for side in SIDES for name in metric_names)]
    names += [name for name in ("width", "height") if name in pairs.column_names]
    return {name: base64.b64encode(_floats(pairs, name).tobytes()).decode() for name in names}


def _texts(pairs: pa.Table) -> dict[str, list[Any]]:
    """Return the text columns. Seeds are text too, because JavaScript rounds integers above 2^53."""
    names = ("pair_id", "prompt_id", "prompt", *(f"{side}_candidate_id" for side in SIDES))
    columns = {name: pairs[name].to_pylist() for name in names if name in pairs.column_names}
    for side in SIDES:
        seeds = _values(pairs, f"{side}_seed")
        columns[f"{side}_seed"] = [None if seed is None else str(seed) for seed in seeds]
    return columns


def _flags(pairs: pa.Table, paths: dict[str, Paths], thumbnails: set[str]) -> dict[str, list[int]]:
    flags = {}
    for side in SIDES:
        flags[f"{side}_is_ground_truth"] = [int(bool(value)) for value in pairs[f"{side}_is_ground_truth"].to_pylist()]
        flags[f"{side}_has_thumbnail"] = [int(path in thumbnails) for path in paths[f"{side}_video"]]
    return flags


def _chosen_by(pairs: pa.Table, choices: dict[str, set[str]]) -> dict[str, list[int]]:
    """Return one integer per pair, with a bit per strategy that is set if the strategy chooses the same pair."""
    sides = (pairs[f"{side}_candidate_id"].to_pylist() for side in SIDES)
    keys = [f"{chosen}>{rejected}" for chosen, rejected in zip(*sides, strict=True)]
    return {"chosen_by": [sum((key in ids) << place for place, ids in enumerate(choices.values())) for key in keys]}


def _urls(paths: dict[str, Paths]) -> dict[str, Paths]:
    """Return URLs relative to the report's folder. A clip beside the winner's video is stored by name only."""
    urls = {name: [_url(path) for path in column] for name, column in paths.items()}
    folders = [url.rpartition("/")[0] + "/" if url else None for url in urls["chosen_video"]]
    for name in set(urls) - {"chosen_video"}:
        urls[name] = [
            url.removeprefix(folder) if url and folder and "/" not in url.removeprefix(folder) else url
            for url, folder in zip(urls[name], folders, strict=True)
        ]
    return {f"{name}_url": column for name, column in urls.items()}


def _url(path: str | None) -> str | None:
    return None if path is None else "../" + quote(path)


def _inside(path: str, output_dir: Path, column: str, row: int) -> str:
    """Turn a path relative to `output_dir/pairs` into one relative to `output_dir`."""
    inside = os.path.normpath(os.path.join("pairs", path))
    if os.path.isabs(path) or inside.split(os.sep)[0] in ("..", "."):
        raise ValueError(
            f"{output_dir / 'pairs'}, row {row}, {column}: {path!r} leads out of {output_dir}, so the report could "
            "not be moved with its clips. Make the path relative to the pairs folder and keep the clip inside the run."
        )
    return inside.replace(os.sep, "/")
