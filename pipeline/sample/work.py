"""The state of sampling: the candidates that are wanted, the finished ones, and the jobs that make the missing ones.

The driver keeps only the journal row number of a finished candidate, so that its memory hardly grows with the run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from core.ids import GROUND_TRUTH_INDEX, candidate_id, fingerprint, stem
from core.lineage import METADATA_KEY
from core.prompts import read_prompts
from core.schema import CANDIDATES, PROMPTS, table_from_rows, with_metadata
from core.storage import file_sizes, resolve_in
from jobs.estimate import describe_space
from jobs.journal import Journal, Row
from jobs.workers import Job, Result
from pipeline.sample.model_identity import lineage_of, model_identity
from rewards.metrics import METRIC_COLUMNS

if TYPE_CHECKING:
    from pipeline.sample.config import SampleConfig

Failure = dict[str, Any]  # a row of the failures table
SIZED_CANDIDATES = 100  # at least so many are measured to estimate the disk space of one candidate
CHUNK_ROWS = 4096  # rows held as Python objects at a time


class SampleWork:
    """The state of the stage. Its constructor reads files and writes none.

    Attributes:
        wanted: candidate_id -> prompt_id and index, in the order of the table.
        done: candidate_id -> number of its row in the journal.
        failures: candidate_id -> its row of the failures table.
        jobs: one job per prompt with a missing candidate.
    """

    def __init__(self, config: SampleConfig) -> None:
        self._config = config
        self._prompts = _Prompts(read_prompts(config.prompts))
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
        self.done: dict[str, int] = {}
        self.failures: dict[str, Failure] = {}
        self._read_journal()
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
        """Write a job's rows to the journal, record its failures, and return how many candidates it settled."""
        prompt_id, before = result["key"], len(self.done) + len(self.failures)
        rows = [row | {"input": self._input(prompt_id, row["index"])} for row in result.get("rows", ())]
        for number, row in zip(self.journal.append(rows), rows, strict=True):
            self.done[row["candidate_id"]] = number
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
        """Describe the disk space that the missing candidates need, estimated from a sample of the finished ones."""
        every = max(1, len(self.done) // SIZED_CANDIDATES)
        some = list(islice(self._done_rows(), None, None, every))
        size_of = file_sizes(self._config.folder)
        sizes = [size_of(name) or 0 for row in some for name in _files(row)]
        return describe_space(sum(sizes) / len(some), len(self.wanted) - len(self.done), self._config.folder)

    def table(self) -> pa.Table:
        """Build the candidates table, in the order of the prompts table, with the prompts' further columns."""
        rows = self._done_rows()
        tables = [table_from_rows(chunk, CANDIDATES) for chunk in iter(lambda: list(islice(rows, CHUNK_ROWS)), [])]
        errors = [self._error_row(key) for key in self.wanted if key not in self.done]
        unordered = pa.concat_tables([*tables, table_from_rows(errors, CANDIDATES)])
        ids = unordered["candidate_id"].combine_chunks()
        table = unordered.take(pc.index_in(pa.array(self.wanted, pa.string()), value_set=ids))
        extra = self._prompts.further_columns(table["prompt_id"])
        taken = {*CANDIDATES.names, *METRIC_COLUMNS}
        for name in extra.column_names:
            table = table.append_column(f"prompt_{name}" if name in taken else name, extra[name])
        lineage = json.dumps(lineage_of(self._config.model).to_dict())
        return with_metadata(table, {"avdpo.settings": json.dumps(self.settings), METADATA_KEY: lineage})

    def _indices(self, prompt_id: str) -> list[int]:
        has_ground_truth = self._config.include_ground_truth and self._prompts.has_video(prompt_id)
        return [GROUND_TRUTH_INDEX] * has_ground_truth + list(range(self._config.num_candidates))

    def _job(self, prompt_id: str) -> Job | None:
        """Return a job for all candidates of a prompt if any is missing, so that batches never differ between runs."""
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
            "video_path": prompt["video_path"] and str(resolve_in(folder, prompt["video_path"])),
            "audio_path": prompt["audio_path"] and str(resolve_in(folder, prompt["audio_path"])),
        }

    def _input(self, prompt_id: str, index: int) -> str:
        """Return a fingerprint of a candidate's inputs. An old journal row whose inputs differ is not reused."""
        names = ["prompt", "audio_prompt"] + ["video_path", "audio_path"] * (index == GROUND_TRUTH_INDEX)
        prompt = self._prompts[prompt_id]
        return fingerprint(json.dumps([prompt[name] for name in names]))

    def _read_journal(self) -> None:
        """Find the finished candidates. The last row of a candidate describes its files; earlier rows are ignored."""
        size_of = file_sizes(self._config.folder)
        for number, row in enumerate(self.journal.rows()):
            key = row["candidate_id"]
            self.done.pop(key, None)
            if (
                key in self.wanted
                and row["input"] == self._input(row["prompt_id"], row["index"])
                and all(size_of(name) for name in _files(row))  # a lost machine may leave an empty file
                and row.get("video_bytes")
                in (None, size_of(row["video_path"]))  # else a stopped run has overwritten the file
            ):
                self.done[key] = number

    def _done_rows(self) -> Iterator[Row]:
        """Iterate over the journal rows of the finished candidates, one row each."""
        rows = enumerate(self.journal.rows())
        return (row for number, row in rows if self.done.get(row["candidate_id"]) == number)

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


def _files(row: Row) -> list[str]:
    """Return the files of a candidate, relative to the folder of the table."""
    return [name for name in (row["video_path"], row["audio_path"], row["latents_path"]) if name]


class _Prompts(Mapping[str, Row]):
    """Mapping from prompt_id to its row of the prompts table. Rows are built on access from an Arrow table."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        ids = table["prompt_id"].combine_chunks()
        self._numbers = {prompt_id: number for number, prompt_id in enumerate(ids.to_pylist())}
        self._columns = {name: table[name].combine_chunks() for name in PROMPTS.names}

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __getitem__(self, prompt_id: str) -> Row:
        number = self._numbers[prompt_id]
        return {name: column[number].as_py() for name, column in self._columns.items()}

    def has_video(self, prompt_id: str) -> bool:
        return self._columns["video_path"][self._numbers[prompt_id]].is_valid

    def further_columns(self, prompt_ids: pa.ChunkedArray) -> pa.Table:
        """Return the columns that the user added to the prompts table, for these prompts."""
        return self._table.drop_columns(PROMPTS.names).take(pc.index_in(prompt_ids, value_set=self._table["prompt_id"]))
