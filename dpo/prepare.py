"""Pairs to training data: `python -m dpo.prepare --pairs DIR --model NAME --output DIR`.

Latents are the sampler's own where it kept them, ground truth is encoded; captions are embedded once.  Training then
needs neither codec nor text encoder.  A killed run goes on where it stopped; a finished one is left alone.
"""

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from dpo.schema import COLUMNS, MODALITIES, NEGATIVE_TEXT_NAME, SIDES
from media.atomic import atomic_path, atomic_write_text
from media.cli import StageSummary, config_to_dict, config_to_yaml, echo, package_versions, parse_config, save_config
from media.stage_state import finished_summary, refuse_changes

if TYPE_CHECKING:
    from datasets import Features

    from model.latents import AVLatents
    from model.pipeline import JointAVPipeline

ROWS_PER_PART = 32  # what a killed run loses at most, and few enough for 32-bit list offsets at 480p
GEOMETRY = ("num_frames", "height", "width", "fps")
_SIDE_COLUMNS = ("candidate_id", "seed", "video_path", "audio_path", "latents_path")
_PAIR_COLUMNS = ("prompt_id", "prompt", *GEOMETRY, *(f"{side}_{name}" for side in SIDES for name in _SIDE_COLUMNS))


@dataclass(frozen=True)
class PrepareConfig:
    """Where the pairs are, whose codecs and text encoder to use, and where the training data goes."""

    pairs: str = field(default="", metadata={"help": "folder of the pairs dataset, written by pipeline.rank"})
    model: str = field(default="tiny", metadata={"help": "model that will be trained: 'tiny' or a model folder"})
    output: str = field(default="", metadata={"help": "folder for the training dataset"})
    device: str = field(default="cpu", metadata={"help": "torch device for encoding"})
    dry_run: bool = field(default=False, metadata={"help": "check the pairs and their files, and stop"})

    def __post_init__(self) -> None:
        for name in ("pairs", "output"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty: set --{name} to a folder.")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; 0 on success, 2 on a mistake in the input."""
    config = parse_config(PrepareConfig, argv)
    echo(config_to_yaml(config))
    try:
        echo(prepare(config).line())
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def prepare(config: PrepareConfig) -> StageSummary:
    """Writes the training dataset, its negative prompt and its summary into `config.output`.

    Raises:
        ValueError: no pairs, missing files, a pair whose members differ in shape, values that are not finite, or a
            folder that holds the data of other pairs or of another model.
    """
    started = time.perf_counter()
    root, folder = Path(config.pairs), Path(config.output)
    pairs = read_pairs(root)
    settings = {"model": config.model, "pairs_fingerprint": fingerprint(pairs)}

    def summary(skipped: int, done: int) -> StageSummary:
        versions = package_versions("avdpo", "torch", "datasets")
        everything = config_to_dict(config) | settings
        seconds = time.perf_counter() - started
        return StageSummary("prepare", len(pairs), done, skipped, len(pairs) - done, seconds, everything, versions)

    found = finished_summary(folder)
    if found is not None:
        refuse_changes(folder, found["settings"], settings)
        return summary(skipped=len(pairs), done=len(pairs))
    check_files(root, pairs)
    if config.dry_run:
        return summary(skipped=0, done=0)

    skipped = _write_parts(folder, root, pairs, settings, config)
    _publish(folder)
    save_config(config, folder / "config.yaml")
    result = summary(skipped, done=len(pairs))
    result.write(folder)
    return result


def read_pairs(folder: Path) -> list[dict[str, Any]]:
    """The columns of the pairs dataset that training needs, read without the `datasets` package."""
    state = folder / "state.json"
    if not state.is_file():
        raise ValueError(f"{folder} holds no pairs dataset: make one with `python -m pipeline.rank`.")
    files = [folder / entry["filename"] for entry in json.loads(state.read_text(encoding="utf-8"))["_data_files"]]
    tables = [pa.ipc.open_stream(pa.memory_map(str(path))).read_all() for path in files]
    rows = [row for table in tables for row in _select(table, folder).to_pylist()]
    if not rows:
        raise ValueError(
            f"{folder} has no pairs, so there is nothing to train on: {folder / 'ranking.json'} says why each "
            "prompt gave none; sample more prompts or candidates."
        )
    return rows


def fingerprint(pairs: list[dict[str, Any]]) -> str:
    """Sixteen hex digits of everything that the training data is made from."""
    return hashlib.blake2b(json.dumps(pairs, sort_keys=True).encode(), digest_size=8).hexdigest()


def check_files(root: Path, pairs: list[dict[str, Any]]) -> None:
    """ValueError naming the files that the pairs promise and the disk lacks."""
    needed = {_source(root, pair, side) for pair in pairs for side in SIDES}
    missing = sorted(str(path) for path in needed if not path.is_file())
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ValueError(
            f"{', '.join(missing[:3])}{more} of the pairs in {root} do not exist: run the sampling stage again, or "
            "drop those pairs."
        )


def dataset_features() -> "Features":
    """The columns of the training dataset for `datasets`."""
    from datasets import Features, List, Value

    def kind(name: str) -> Any:
        return List(Value(name[5:-1])) if name.startswith("list<") else Value(name)

    return Features({column: kind(name) for column, name in COLUMNS.items()})


def _select(table: pa.Table, folder: Path) -> pa.Table:
    missing = [name for name in _PAIR_COLUMNS if name not in table.column_names]
    if missing:
        raise ValueError(f"{folder} lacks the columns {', '.join(missing)}: make it with `python -m pipeline.rank`.")
    return table.select(list(_PAIR_COLUMNS))


def _source(root: Path, pair: dict[str, Any], side: str) -> Path:
    return root / (pair[f"{side}_latents_path"] or pair[f"{side}_video_path"])


def _write_parts(
    folder: Path, root: Path, pairs: list[dict[str, Any]], settings: dict[str, Any], config: PrepareConfig
) -> int:
    """Writes what is missing of `parts/`, and returns how many rows were there."""
    parts = folder / "parts"
    marker = parts / "settings.json"
    if marker.is_file() and json.loads(marker.read_text(encoding="utf-8")) != settings:
        shutil.rmtree(parts)  # unfinished work on other pairs
    atomic_write_text(marker, json.dumps(settings))
    slices = {start: pairs[start : start + ROWS_PER_PART] for start in range(0, len(pairs), ROWS_PER_PART)}
    left = {start: rows for start, rows in slices.items() if not _part(parts, start).is_file()}
    if left or not (folder / NEGATIVE_TEXT_NAME).is_file():
        from model.pipeline import JointAVPipeline

        pipeline = JointAVPipeline.from_pretrained(config.model, device=config.device)
        _write_negative_text(pipeline, folder)
        schema = dataset_features().arrow_schema
        with tqdm(total=sum(map(len, left.values())), desc="prepare", unit="pair", file=sys.stderr) as bar:
            for start, rows in left.items():
                table = pa.table(_columns(pipeline, root, rows, bar.update), schema=schema)
                with atomic_path(_part(parts, start)) as path, pa.ipc.new_stream(str(path), schema) as writer:
                    writer.write_table(table)
    return len(pairs) - sum(map(len, left.values()))


def _part(parts: Path, start: int) -> Path:
    return parts / f"rows-{start:08d}.arrow"


def _write_negative_text(pipeline: "JointAVPipeline", folder: Path) -> None:
    from safetensors.torch import save_file

    embeds = pipeline.encode_text([pipeline.defaults.negative_prompt]).embeds[0]
    with atomic_path(folder / NEGATIVE_TEXT_NAME) as path:
        save_file({"embeds": embeds.float().cpu().contiguous()}, path)


def _columns(
    pipeline: "JointAVPipeline", root: Path, pairs: list[dict[str, Any]], progress: Callable[[int], Any]
) -> dict[str, Any]:
    texts = pipeline.encode_text([pair["prompt"] for pair in pairs])
    embeds = [embed.cpu().numpy() for embed in texts.trimmed()]
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for pair, text in zip(pairs, embeds, strict=True):
        latents = {side: _latents(pipeline, root, pair, side) for side in SIDES}
        _check_same_shape(pair, latents)
        row = {name: pair[name] for name in ("prompt_id", *GEOMETRY)}
        row |= {"text_embeds": _flat(text, pair, "caption"), "text_length": len(text), "text_dim": text.shape[1]}
        for name in MODALITIES:
            row[f"{name}_latents_shape"] = list(getattr(latents["chosen"], name).shape)
            for side in SIDES:
                values = getattr(latents[side], name).numpy()
                row[f"{side}_{name}_latents"] = _flat(values, pair, f"{side} {name}")
        for name, column in columns.items():
            column.append(row[name])
        progress(1)
    return {name: _list_array(column) if "float16" in COLUMNS[name] else column for name, column in columns.items()}


def _latents(pipeline: "JointAVPipeline", root: Path, pair: dict[str, Any], side: str) -> "AVLatents":
    path = _source(root, pair, side)
    if pair[f"{side}_latents_path"]:
        from model.latents import AVLatents

        return AVLatents.load(path)
    from media.read import read_clip

    audio_path = pair[f"{side}_audio_path"]
    geometry = {name: pair[name] for name in GEOMETRY}
    clip = read_clip(
        path,
        audio_path=root / audio_path if audio_path else None,
        sample_rate=pipeline.defaults.sample_rate,
        num_channels=1,
        **geometry,
    )
    return pipeline.encode_clips([clip])[0]


def _check_same_shape(pair: dict[str, Any], latents: dict[str, "AVLatents"]) -> None:
    for name in (*MODALITIES, "num_frames", "height", "width"):
        chosen, rejected = (getattr(latents[side], name) for side in SIDES)
        if name in MODALITIES:
            chosen, rejected = tuple(chosen.shape), tuple(rejected.shape)
        if chosen != rejected:
            raise ValueError(
                f"Pair {pair['prompt_id']!r}: the chosen clip has {name} {chosen}, the rejected one {rejected}; noise "
                "and crop could not be shared. Bring ground truth to the candidates' geometry in the sampling stage."
            )


def _flat(values: np.ndarray, pair: dict[str, Any], what: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        flat = values.astype(np.float16).ravel()
    if not np.isfinite(flat).all():
        raise ValueError(
            f"Pair {pair['prompt_id']!r}: its {what} data is not finite in float16 and would turn the model into NaN; "
            "generate the clip again, or drop the pair."
        )
    return flat


def _list_array(arrays: list[np.ndarray]) -> pa.Array:
    offsets = np.cumsum([0] + [len(array) for array in arrays], dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, np.concatenate(arrays))


def _publish(folder: Path) -> None:
    """Joins the parts into the dataset; `state.json`, which loading needs, is put in place last."""
    from datasets import Dataset, concatenate_datasets, disable_progress_bars

    disable_progress_bars()
    parts, staging = folder / "parts", folder / ".tmp-dataset"
    rows = concatenate_datasets([Dataset.from_file(str(path)) for path in sorted(parts.glob("*.arrow"))])
    shutil.rmtree(staging, ignore_errors=True)
    rows.save_to_disk(str(staging))
    for path in sorted(staging.iterdir(), key=lambda path: path.name == "state.json"):
        path.replace(folder / path.name)
    staging.rmdir()
    shutil.rmtree(parts)


if __name__ == "__main__":
    sys.exit(main())
