"""Sample candidates for every prompt, and bring its ground truth to their form: prompts table in, candidates table out.

    python -m pipeline.sample --prompts prompts.parquet --output_dir runs/first --model tiny

The unit of work is a prompt with all its candidates. A candidate is done when the journal has its row and its files
exist; a restart makes the rest, with the same seeds.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from media.cli import StageSummary
from pipeline.actors import SampleActor
from pipeline.estimate import describe_pace, describe_space, measure, warm_up_jobs, warm_up_pool
from pipeline.journal import Journal, Row
from pipeline.model_identity import model_identity
from pipeline.naming import GROUND_TRUTH_INDEX, candidate_id, fingerprint, stem
from pipeline.prompts import read_prompts
from pipeline.schema import CANDIDATES, PROMPTS, table_from_rows, with_metadata, write_table
from pipeline.stage import WorkerConfig, finish, hold, plan_line, progress_bar, run_command, setting
from pipeline.workers import Job, Result, map_jobs
from rewards.metrics import METRIC_COLUMNS

Failure = dict[str, Any]  # a row of the failures table
SIZED_CANDIDATES = 100  # whose files are looked at to tell the size of one


@dataclass(frozen=True, kw_only=True)
class SampleConfig(WorkerConfig):
    """Settings of `python -m pipeline.sample`. None leaves a value to the model's own default."""

    prompts: Path = field(
        metadata={"help": "Prompts table: CSV, JSONL or Parquet; its paths are relative to its folder."}
    )
    output_dir: Path = field(metadata={"help": "Folder of the run; candidates/ is written in it."})
    model: str = setting("tiny", "Preset name, model or adapter folder, or package.module:callable.")
    num_candidates: int = setting(3, "Candidates per prompt.")
    include_ground_truth: bool = setting(True, "Add each prompt's real clip (video_path), in the candidates' form.")
    seed: int = setting(0, "Run seed; a candidate's seed is a function of it, the prompt_id and the index.")
    num_frames: int | None = setting(None, "Frames per clip.")
    height: int | None = setting(None, "Pixels.")
    width: int | None = setting(None, "Pixels.")
    num_inference_steps: int | None = setting(None, "Solver steps.")
    guidance_scale: float | None = setting(None, "Classifier-free guidance.")
    negative_prompt: str | None = setting(None, "Text to steer away from.")
    dtype: str = setting("float32", "Type of the network's weights, e.g. bfloat16.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_candidates < 1:
            raise ValueError(f"num_candidates is {self.num_candidates}, but must be at least 1.")

    @property
    def options(self) -> dict[str, Any]:
        """What the generator is called with besides prompts and seeds."""
        names = ("num_frames", "height", "width", "num_inference_steps", "guidance_scale", "negative_prompt")
        return {name: getattr(self, name) for name in names}

    @property
    def folder(self) -> Path:
        return self.output_dir / "candidates"


def sample(config: SampleConfig) -> StageSummary:
    """Run the stage: make what is missing, then write candidates.parquet, failures.parquet and summary.json.

    Raises:
        ValueError: the prompts table is not one, the model is not there, the folder holds results of other settings, or
            another run is at work in it.
        StageStoppedError: the model cannot be loaded, or the disk is full.
    """
    started = time.perf_counter()
    with hold(config.folder):
        work = _Work(config)
        skipped = len(work.done)
        with work.journal, progress_bar("sample", len(work.wanted), skipped) as bar:
            for result in map_jobs(work.jobs, SampleActor, work.actor_settings(), config.pool):
                bar.update(work.take(result))
                bar.set_postfix(failed=len(work.failures), refresh=False)
        write_table(work.table(), CANDIDATES, config.folder / "candidates.parquet")
        return finish(
            "sample",
            config.folder,
            config,
            started=started,
            wanted=len(work.wanted),
            done=len(work.done),
            skipped=skipped,
            failures=[work.failures[key] for key in work.wanted if key in work.failures],
            versions={"model": work.settings["model"]},
        )


def plan(config: SampleConfig) -> str:
    """What a run would do, as one line, and the disk it will need, told by what there is."""
    work = _Work(config)
    line = plan_line("sample", len(work.wanted), len(work.done), config.folder)
    return f"{line}; {work.describe_space()}" if work.done and work.jobs else line


def estimate(config: SampleConfig) -> str:
    """Sample a few prompts, whose rows are kept, and tell what the rest will take, as one line. Raises as `sample`."""
    with hold(config.folder):
        work = _Work(config)
        if not work.jobs:
            return "sample: nothing is left to do"
        pool = warm_up_pool(config.pool)
        few = warm_up_jobs(work.jobs, pool)
        with work.journal:
            pace = measure(map_jobs(few, SampleActor, work.actor_settings(), pool), work.take, pool)
        left = len(work.wanted) - len(work.done)
        parts = [f"sample: {left} candidates left", describe_pace(pace, len(work.jobs) - len(few), config.pool)]
        return "; ".join([*parts, work.describe_space()] if work.done else parts)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(SampleConfig, plan, estimate, sample, argv)


class _Work:
    """Which candidates are wanted, which of them are done, and the jobs that make the rest. Making it only reads."""

    def __init__(self, config: SampleConfig) -> None:
        self._config = config
        self._prompts_table = read_prompts(config.prompts)
        self._prompts = {row["prompt_id"]: row for row in self._prompts_table.select(PROMPTS.names).to_pylist()}
        self.settings = {
            "model": model_identity(config.model),
            "seed": config.seed,
            "num_candidates": config.num_candidates,
            "dtype": config.dtype,
            **config.options,
        }
        self.journal = Journal(config.folder / "journal.jsonl", self.settings)
        self.wanted = {
            candidate_id(prompt_id, index): (prompt_id, index)
            for prompt_id in self._prompts
            for index in self._indices(prompt_id)
        }
        self.done: dict[str, Row] = {}
        self.failures: dict[str, Failure] = {}
        self._record(row for row in self.journal.rows if self._has_files(row))
        self.jobs = [job for prompt_id in self._prompts if (job := self._job(prompt_id))]

    def actor_settings(self) -> dict[str, Any]:
        config = self._config
        return config.worker_settings | {
            "model": config.model,
            "dtype": config.dtype,
            "seed": config.seed,
            "options": config.options,
            "folder": str(config.folder.resolve()),
        }

    def take(self, result: Result) -> int:
        """Journal what a job has made, note what failed, and return how many candidates that settles."""
        prompt_id, before = result["key"], len(self.done) + len(self.failures)
        rows = [row | {"input": self._input(prompt_id, row["index"])} for row in result.get("rows", ())]
        self._record(self.journal.append(rows))
        if "lost" in result:
            errors = dict.fromkeys(self._indices(prompt_id), result["lost"])
        else:
            errors = {failure["index"]: failure["error"] for failure in result["failures"]}
        for index, error in errors.items():
            if (key := candidate_id(prompt_id, index)) not in self.done:
                self.failures[key] = {
                    "candidate_id": key,
                    "prompt_id": prompt_id,
                    "error": error,
                    "tries": result["tries"],
                }
        return len(self.done) + len(self.failures) - before

    def describe_space(self) -> str:
        """The disk that the candidates which are left will need, told by some of those that are done."""
        some = list(self.done.values())[:: max(1, len(self.done) // SIZED_CANDIDATES)]
        sizes = [path.stat().st_size for row in some for path in self._files(row)]
        return describe_space(sum(sizes) / len(some), len(self.wanted) - len(self.done), self._config.folder)

    def table(self) -> pa.Table:
        """The candidates table, in the order of the prompts table, with the prompts' further columns."""
        rows = [self.done.get(key) or self._error_row(key) for key in self.wanted]
        table = table_from_rows(rows, CANDIDATES)
        numbers = {prompt_id: number for number, prompt_id in enumerate(self._prompts)}
        extra = self._prompts_table.drop_columns(PROMPTS.names).take(
            pa.array([numbers[row["prompt_id"]] for row in rows])
        )
        taken = {*CANDIDATES.names, *METRIC_COLUMNS}
        for name in extra.column_names:
            table = table.append_column(f"prompt_{name}" if name in taken else name, extra[name])
        return with_metadata(table, {"avdpo.settings": json.dumps(self.settings)})

    def _indices(self, prompt_id: str) -> list[int]:
        has_ground_truth = self._config.include_ground_truth and self._prompts[prompt_id]["video_path"] is not None
        return [GROUND_TRUTH_INDEX] * has_ground_truth + list(range(self._config.num_candidates))

    def _job(self, prompt_id: str) -> Job | None:
        """All candidates of a prompt when any of them is missing, so that a batch always holds the same samples."""
        missing = [index for index in self._indices(prompt_id) if candidate_id(prompt_id, index) not in self.done]
        if not missing:
            return None
        prompt, folder = self._prompts[prompt_id], self._config.prompts.resolve().parent
        return {
            "key": prompt_id,
            "prompt": prompt["prompt"],
            "audio_prompt": prompt["audio_prompt"],
            "media": f"media/{stem(prompt_id)}",
            "indices": [] if missing == [GROUND_TRUTH_INDEX] else list(range(self._config.num_candidates)),
            "ground_truth": GROUND_TRUTH_INDEX in missing,
            "video_path": prompt["video_path"] and str(folder / prompt["video_path"]),
            "audio_path": prompt["audio_path"] and str(folder / prompt["audio_path"]),
        }

    def _input(self, prompt_id: str, index: int) -> str:
        """Changes when the prompts table asks for something else under the same id: an old row is then not reused."""
        names = ["prompt", "audio_prompt"] + ["video_path", "audio_path"] * (index == GROUND_TRUTH_INDEX)
        return fingerprint(json.dumps([self._prompts[prompt_id][name] for name in names]))

    def _record(self, rows: Any) -> None:
        for row in rows:
            key = row["candidate_id"]
            if key in self.wanted and row["input"] == self._input(row["prompt_id"], row["index"]):
                self.done[key] = row

    def _has_files(self, row: Row) -> bool:
        return all(path.is_file() for path in self._files(row))

    def _files(self, row: Row) -> list[Path]:
        paths = (row["video_path"], row["audio_path"], row["latents_path"])
        return [self._config.folder / path for path in paths if path]

    def _error_row(self, key: str) -> Row:
        prompt_id, index = self.wanted[key]
        prompt = self._prompts[prompt_id]
        return {
            "candidate_id": key,
            "prompt_id": prompt_id,
            "prompt": prompt["prompt"],
            "audio_prompt": prompt["audio_prompt"],
            "index": index,
            "is_ground_truth": index == GROUND_TRUTH_INDEX,
            "error": self.failures[key]["error"],
        }


if __name__ == "__main__":
    sys.exit(main())
