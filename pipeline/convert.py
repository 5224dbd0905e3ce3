"""Conversion between this project's tables and those of other tools, and ranking by human labels.

python -m pipeline.convert --from rewards.csv --to runs/imported
python -m pipeline.convert --from runs/first/pairs --to pairs.csv
python -m pipeline.convert --from pairs.csv --to runs/theirs/pairs
python -m pipeline.convert --from runs/first/pairs --to trl.jsonl --format trl
python -m pipeline.convert --from runs/first/pairs --labels ann.csv ben.csv --to runs/first/pairs_human
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa

from core.atomic import atomic_folder, atomic_path
from core.cli import echo, parse_config
from core.lineage import LABELLED, LINEAGE_KEY, Lineage
from core.schema import CANDIDATES, SCORES, read_table, write_table
from core.storage import StoragePath
from pipeline.exchange.javisdit_csv import (
    SOURCE_COLUMNS,
    read_javisdit_pairs,
    read_javisdit_rewards,
    write_javisdit_pairs,
)
from pipeline.exchange.label_agreement import agreement_table
from pipeline.exchange.label_ranking import LabelledPairs, pairs_from_labels, rank_by_labels
from pipeline.exchange.labels import Labels, read_labels
from pipeline.exchange.trl_view import trl_view
from pipeline.rank.pairs_folder import (
    REPORT_NAME,
    STATE_NAME,
    is_dataset,
    moved,
    moved_paths,
    read_pairs,
    read_report,
    write_pairs,
)
from rewards.agreement_tables import read_frame
from rewards.metrics import HIGHER_IS_BETTER, METRIC_COLUMNS

__all__ = [
    "Labels",
    "pairs_from_labels",
    "rank_by_labels",
    "read_javisdit_pairs",
    "read_javisdit_rewards",
    "read_labels",
    "trl_view",
    "write_javisdit_pairs",
]

ABOUT = """Convert preference data. The input is detected from its content: the release's rewards CSV, the release's DPO
CSV, a pairs folder of pipeline.rank or, with --labels, a run folder with candidates. A rewards CSV becomes a run folder
(candidates/ and scores/) that pipeline.rank reads. Pairs become the release's CSV (--to FILE.csv), a pairs folder
(--to DIR), or TRL's prompt, chosen, rejected (--format trl --to DIR, FILE.jsonl or FILE.parquet).
--labels replaces the ranking's winners by those that people chose. Its rows have a, b (candidate ids) and winner (a, b,
tie), or pair_id and winner (chosen, rejected, tie). The columns modality (video, audio, audio_video, overall) and
annotator are optional."""

Format = Literal["own", "trl"]


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """Settings of `python -m pipeline.convert`."""

    source: StoragePath = field(
        metadata={"help": "A CSV of the release, a pairs folder, or a run folder.", "aliases": ["--from"]}
    )
    target: StoragePath = field(
        metadata={
            "help": "File or folder to write. The suffix selects the format; without one a folder is written.",
            "aliases": ["--to"],
        }
    )
    format: Format = field(
        default="own",
        metadata={"help": "trl: the columns prompt, chosen, rejected. own: the format that --to selects."},
    )
    labels: list[str] = field(
        default_factory=list, metadata={"help": "CSV or Parquet files of human labels, which are merged by majority."}
    )
    keep_unlabelled: bool = field(
        default=False, metadata={"help": "Keep pairs that nobody labelled, with the ranking's winner."}
    )
    media_root: StoragePath = field(
        default=Path(),
        metadata={
            "help": "Folder that paths in the release's CSV files are relative to, when reading and when writing; the "
            "release uses its working directory."
        },
    )
    overwrite: bool = field(default=False, metadata={"help": "Replace what exists at --to."})

    def __post_init__(self) -> None:
        suffixes = ("", ".jsonl", ".parquet") if self.format == "trl" else ("", ".csv")
        if self.target.suffix not in suffixes:
            raise ValueError(
                f"--to {self.target}: with --format {self.format} give a folder or a {' or '.join(suffixes[1:])} file."
            )
        if self.keep_unlabelled and not self.labels:
            raise ValueError(
                "keep_unlabelled is set, but there are no labels to apply. Give --labels, or leave keep_unlabelled out."
            )
        if self.target.resolve() == self.source.resolve():
            raise ValueError(f"--from and --to are both {self.source}. Give another --to.")


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Pairs during a conversion; their paths are relative to `root`."""

    table: pd.DataFrame
    root: Path
    report: dict[str, Any]
    candidates: pd.DataFrame | None = None  # source of columns that only the release's CSV has


def convert(config: ConvertConfig) -> str:
    """Run the conversion. Returns lines of text that describe the result.

    Raises:
        ValueError: the input cannot be read or converted to the target format, or the target exists.
    """
    _check_target(config)
    kind = _kind(config)
    if kind == "rewards":
        return _import_rewards(config)
    lines: list[str] = []
    pairs = {"release": _release_pairs, "pairs": _own_pairs, "candidates": _unranked}[kind](config)
    if config.labels:
        labelled = rank_by_labels(pairs.table, read_labels(config.labels), config.keep_unlabelled)
        pairs, lines = _labelled(pairs, labelled), _label_lines(labelled)
    _write(pairs, config)
    return "\n".join([*lines, f"convert: {len(pairs.table)} pairs from {config.source} to {config.target}"])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status: 0, or 2 if the input is wrong."""
    config = parse_config(ConvertConfig, argv, about=ABOUT)
    try:
        echo(convert(config))
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def _check_target(config: ConvertConfig) -> None:
    target = config.target
    if target.is_dir() and not is_dataset(target) and any(target.iterdir()):
        raise ValueError(f"--to {target} is a folder with other files, which would be lost. Give another --to.")
    if target.exists() and not config.overwrite:
        raise ValueError(f"--to {target} exists. Give --overwrite to replace it, or another --to.")


def _kind(config: ConvertConfig) -> str:
    source = config.source
    if is_dataset(source):
        return "pairs"
    if _candidates_path(source).is_file():
        if not config.labels:
            raise ValueError(f"{source} is a run folder. Give its pairs folder, {source / 'pairs'}, or --labels.")
        return "candidates"
    if source.is_dir():
        raise ValueError(
            f"{source} holds neither a pairs dataset nor candidates/candidates.parquet, so nothing can be converted. "
            "Give a pairs folder or a run folder."
        )
    columns = set(read_frame(source))
    if "pred_video_path" in columns:
        return "rewards"
    if "path_reject" in columns:
        return "release"
    raise ValueError(
        f"{source} has neither pred_video_path (the release's rewards) nor path_reject (the release's pairs), so it is "
        "no table to convert. Prompts need no conversion: pipeline.sample reads the release's headers."
    )


def _candidates_path(run: Path) -> Path:
    return run / "candidates" / "candidates.parquet"


def _import_rewards(config: ConvertConfig) -> str:
    """Write a rewards CSV as a run folder: its clips become candidates, its scores a scores table of the release."""
    if config.target.suffix or config.labels or config.format != "own":
        raise ValueError("A rewards CSV becomes a run folder: give a folder as --to, no --labels and no --format.")
    frame = read_javisdit_rewards(config.source)
    folder = config.target / "candidates"
    candidates = frame.drop(columns=[name for name in METRIC_COLUMNS if name in frame])
    for name in ("video_path", "audio_path"):
        candidates[name] = moved(candidates[name], config.media_root, folder)
    metrics = [name for name in METRIC_COLUMNS if name in frame]
    fields = [
        pa.field(name, pa.float64(), metadata={"higher_is_better": str(HIGHER_IS_BETTER[name]).lower()})
        for name in metrics
    ]
    schema = pa.schema([SCORES.field("candidate_id"), *fields], metadata={"avdpo.protocol": "javisbench"})
    scores = pa.Table.from_pandas(frame[["candidate_id", *metrics]], schema=schema, preserve_index=False)
    write_table(pa.Table.from_pandas(candidates, preserve_index=False), CANDIDATES, folder / "candidates.parquet")
    write_table(scores, SCORES, config.target / "scores" / "scores.parquet")
    return (
        f"convert: {len(frame)} candidates of {frame['prompt_id'].nunique()} prompts from {config.source} to "
        f"{config.target}; rank them with `python -m pipeline.rank --output_dir {config.target}`"
    )


def _release_pairs(config: ConvertConfig) -> _Pairs:
    table = read_javisdit_pairs(config.source)
    return _Pairs(table, config.media_root, {"source": str(config.source), "num_pairs": len(table)})


def _own_pairs(config: ConvertConfig) -> _Pairs:
    path = _candidates_path(config.source.parent)
    candidates = read_frame(path) if path.is_file() else None
    return _Pairs(read_pairs(config.source), config.source, read_report(config.source), candidates)


def _unranked(config: ConvertConfig) -> _Pairs:
    """Read a run's candidates with any scores; labels make the pairs."""
    path, scores_path = _candidates_path(config.source), config.source / "scores" / "scores.parquet"
    table = read_table(path, CANDIDATES, "python -m pipeline.sample")
    frame = table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    if scores_path.is_file():
        scores = read_table(scores_path, SCORES, "python -m pipeline.score").to_pandas()
        metrics = [name for name in scores if name in METRIC_COLUMNS]
        frame = frame.merge(scores[["candidate_id", *metrics]], on="candidate_id", how="left")
    return _Pairs(frame, path.parent, {"num_prompts": int(frame["prompt_id"].nunique())}, frame)


def _labelled(pairs: _Pairs, labelled: LabelledPairs) -> _Pairs:
    """Replace pairs and report. `inputs` is removed, so that pipeline.rank does not take the pairs for its own."""
    report = {key: value for key, value in pairs.report.items() if key != "inputs"}
    report |= {"num_pairs": len(labelled.pairs), "labels": labelled.report()}
    report[LINEAGE_KEY] = _labelled_lineage(pairs.report, labelled).to_dict()
    if report.get("num_prompts"):
        report["num_prompts_with_pair"] = int(labelled.pairs["prompt_id"].nunique())
        report["yield"] = report["num_prompts_with_pair"] / report["num_prompts"]
    return _Pairs(labelled.pairs, pairs.root, report, pairs.candidates)


def _labelled_lineage(ranking: dict[str, Any], labelled: LabelledPairs) -> Lineage:
    """Return the lineage of labels, added to the ranking's if some pairs kept the ranking's winner."""
    if not (labelled.pairs["label_source"] == "ranking").any():
        return LABELLED
    return Lineage.from_dict(ranking.get(LINEAGE_KEY), REPORT_NAME).then(LABELLED)


def _label_lines(labelled: LabelledPairs) -> list[str]:
    counts = "; ".join(f"{count} x {name}" for name, count in labelled.counts.items())
    return [agreement_table(labelled.agreement), f"labels: {counts}"]


def _write(pairs: _Pairs, config: ConvertConfig) -> None:
    if config.format == "trl":
        _write_trl(pairs, config.target)
    elif config.target.suffix == ".csv":
        table = moved_paths(pairs.table, pairs.root, config.media_root)
        candidates = pairs.candidates
        known = candidates is not None and {*SOURCE_COLUMNS} & {*candidates}
        write_javisdit_pairs(table, config.target, candidates if known else None)
    else:
        write_pairs(moved_paths(pairs.table, pairs.root, config.target), config.target, pairs.report)


def _write_trl(pairs: _Pairs, target: Path) -> None:
    folder = target.parent if target.suffix else target
    view = trl_view(moved_paths(pairs.table, pairs.root, folder))
    if not target.suffix:
        import datasets  # imported late: takes a second

        datasets.disable_progress_bars()
        with atomic_folder(target, last=STATE_NAME) as temporary_folder:
            datasets.Dataset.from_pandas(view, preserve_index=False).save_to_disk(str(temporary_folder))
        return
    with atomic_path(target) as temporary:
        if target.suffix == ".jsonl":
            lines = (json.dumps(row, ensure_ascii=False) for row in view.to_dict("records"))
            temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        else:
            view.to_parquet(temporary, index=False)


if __name__ == "__main__":
    sys.exit(main())
