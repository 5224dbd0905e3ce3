"""Samples of a model, each with its row of the benchmark, and the problems of samples by name.

Two layouts: the output of `pipeline.sample`, joined by prompt_id; and a folder of files as the release names them,
`sample_0007.mp4` with `sample_0007.wav` beside it, which answers row 7.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from core.ids import candidate_id
from core.lineage import METADATA_KEY, UNKNOWN, Lineage, parse_lineage
from core.schema import CANDIDATES, FAILURES, read_table
from evaluation.run.benchmark import Benchmark

_SAMPLE = re.compile(r"sample_(\d+)(?:-(\d+))?\.(mp4|avi|mov|mkv|webm)", re.IGNORECASE)
# Missing: a caption without a sample. Duplicate: of several files none is taken. Wrong: of another table. Failed: in
# sampling, in reading or in measuring. Undefined: a clip without a value of some metrics, such as a mute one.
# Unfetched: ground truth that the table names and that does not exist.
Kind = Literal["missing", "duplicate", "wrong", "failed", "undefined", "unfetched"]
NO_FAILURES = ("undefined", "unfetched")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One generated clip."""

    candidate_id: str
    row: int  # of the benchmark
    video_path: str
    audio_path: str | None
    latents_path: str | None = None
    seed: int | None = None
    duration_s: float | None = None
    generation_s: float | None = None


@dataclass(frozen=True)
class Problem:
    """A sample that takes no part, or a caption without one."""

    name: str  # candidate_id, file name or prompt_id
    kind: Kind
    reason: str

    @property
    def is_failure(self) -> bool:
        """Return whether the problem is a missing or failed sample, caption or clip."""
        return self.kind not in NO_FAILURES


@dataclass(frozen=True, eq=False)
class Samples:
    """The usable samples, in the order of the benchmark's rows."""

    samples: list[Sample]
    problems: list[Problem]
    metadata: dict[str, str]  # of the candidates table
    lineage: Lineage = UNKNOWN  # of the model


def read_samples(folder: Path, benchmark: Benchmark) -> Samples:
    """Find the samples in a folder, and account for every row of the benchmark.

    Raises:
        ValueError: the folder has neither layout, or not one sample of the benchmark.
    """
    tables = (folder / "candidates" / "candidates.parquet", folder / "candidates.parquet")
    table = next((path for path in tables if path.is_file()), None)
    found = _from_table(table, benchmark) if table else _from_files(folder, benchmark)
    answered = {sample.row for sample in found.samples}
    named = {problem.name.rsplit("/", 1)[0] for problem in found.problems}
    missing = [
        Problem(prompt_id, "missing", f"no sample for row {row} of {benchmark.path.name}")
        for row, prompt_id in enumerate(benchmark.rows["prompt_id"])
        if row not in answered and prompt_id not in named
    ]
    if not found.samples:
        reasons = "; ".join(f"{problem.name}: {problem.reason}" for problem in found.problems[:3])
        raise ValueError(
            f"{folder} has no sample of {benchmark.path}{f' ({reasons})' if reasons else ''}. Sample from that very "
            "table, or name the files sample_0000.mp4, sample_0001.mp4, ... in the order of its rows."
        )
    samples = sorted(found.samples, key=lambda one: one.row)
    return replace(found, samples=samples, problems=[*found.problems, *missing])


def _from_table(path: Path, benchmark: Benchmark) -> Samples:
    """Join by prompt_id; the prompt has to be the benchmark's."""
    table = read_table(path, CANDIDATES, "python -m pipeline.sample")
    rows = {prompt_id: row for row, prompt_id in enumerate(benchmark.rows["prompt_id"])}
    samples, problems = [], []
    for one in table.to_pylist():
        if one["is_ground_truth"] or one["prompt_id"] in benchmark.beyond:
            continue
        reason = _mistake(one, benchmark, rows)
        if reason:
            problems.append(Problem(one["candidate_id"], *reason))
            continue
        samples.append(_sample(one, rows[one["prompt_id"]], path.parent))
    named = {one["candidate_id"] for one in table.select(["candidate_id"]).to_pylist()}
    problems += _failures(path.parent / "failures.parquet", named, benchmark)
    metadata = _metadata(table)
    return Samples(samples, problems, metadata, parse_lineage(metadata.get(METADATA_KEY), path))


def _mistake(one: dict[str, Any], benchmark: Benchmark, rows: dict[str, int]) -> tuple[Kind, str] | None:
    """Return the kind of a candidate's problem, and the reason in words."""
    if one["error"] or not one["video_path"]:
        return "failed", f"failed in sampling: {one['error'] or 'it has no video'}"
    if one["candidate_id"] != (named := candidate_id(one["prompt_id"], one["index"])):
        return "wrong", f"its prompt_id and index make it {named!r}"
    if one["prompt_id"] not in rows:
        return "wrong", f"the benchmark has no prompt_id {one['prompt_id']!r}"
    wanted = benchmark.rows["prompt"][rows[one["prompt_id"]]]
    if one["prompt"] != wanted:
        return "wrong", f"was sampled from {one['prompt']!r}, but the benchmark's prompt of this id is {wanted!r}"
    return None


def _sample(one: dict[str, Any], row: int, folder: Path) -> Sample:
    return Sample(
        candidate_id=one["candidate_id"],
        row=row,
        video_path=str(folder / one["video_path"]),
        audio_path=str(folder / one["audio_path"]) if one["audio_path"] else None,
        latents_path=str(folder / one["latents_path"]) if one["latents_path"] else None,
        seed=one["seed"],
        duration_s=one["duration_s"],
        generation_s=one.get("generation_s"),
    )


def _failures(path: Path, named: Collection[str], benchmark: Benchmark) -> list[Problem]:
    """Return the failures of sampling that the table of candidates does not name."""
    if not path.is_file():
        return []
    return [
        Problem(one["candidate_id"], "failed", f"failed in sampling: {one['error']}")
        for one in read_table(path, FAILURES, "python -m pipeline.sample").to_pylist()
        if one["candidate_id"] not in named
        and one["prompt_id"] not in benchmark.beyond
        and not one["candidate_id"].endswith("/gt")
    ]


def _metadata(table: pa.Table) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}


def _from_files(folder: Path, benchmark: Benchmark) -> Samples:
    """Join by the number in the file's name, the only information of such a folder."""
    if not folder.is_dir():
        raise ValueError(f"{folder} does not exist: give the output_dir of pipeline.sample, or a folder of samples.")
    matches = [match for path in sorted(folder.iterdir()) if (match := _SAMPLE.fullmatch(path.name))]
    if not matches:
        raise ValueError(
            f"{folder} holds neither candidates/candidates.parquet, which pipeline.sample writes, nor files such as "
            "sample_0000.mp4: give a folder that holds one of the two."
        )
    keys = [(int(match[1]), int(match[2] or 0)) for match in matches]
    counts = Counter(keys)
    samples, problems = [], []
    for match, (row, index) in zip(matches, keys, strict=True):
        if len(benchmark) <= row < benchmark.num_in_table:
            continue  # left out by a limit
        if row >= len(benchmark):
            last = benchmark.num_in_table - 1
            problems.append(Problem(match[0], "wrong", f"the benchmark has no row {row}, its last is {last}"))
        elif counts[row, index] > 1:
            problems.append(Problem(match[0], "duplicate", f"{counts[row, index]} files are sample {row}: keep one"))
        else:
            samples.append(_file_sample(folder / match[0], row, candidate_id(benchmark.rows["prompt_id"][row], index)))
    return Samples(samples, problems, {})


def _file_sample(path: Path, row: int, key: str) -> Sample:
    sound = path.with_suffix(".wav")
    return Sample(candidate_id=key, row=row, video_path=str(path), audio_path=str(sound) if sound.is_file() else None)
