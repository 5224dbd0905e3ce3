"""Score every candidate with one or more rewards: candidates table in, scores table out.

    python -m pipeline.score --output_dir runs/first --rewards verifiable

Incremental: a score is kept under (candidate, reward name, reward version), so another reward, a new version of one, or
more candidates cost only what is missing.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from media.cli import StageSummary
from pipeline.actors import ScoreActor
from pipeline.journal import Journal, Row
from pipeline.naming import fingerprint
from pipeline.schema import CANDIDATES, SCORES, read_table, table_from_rows, write_table
from pipeline.stage import WorkerConfig, finish, plan_line, progress_bar, run_command, setting
from pipeline.workers import Job, Result, map_jobs
from rewards import Reward, get_reward

Failure = dict[str, Any]  # a row of the failures table


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(WorkerConfig):
    """Settings of `python -m pipeline.score`."""

    output_dir: Path = field(metadata={"help": "Folder of the run; candidates/ is read, scores/ is written in it."})
    rewards: list[str] = field(
        default_factory=lambda: ["verifiable"],
        metadata={"help": "Reward names, or package.module:Class for one of your own."},
    )
    dtype: str = setting("float32", "Type of the reward networks' weights, e.g. bfloat16.")

    @property
    def folder(self) -> Path:
        return self.output_dir / "scores"


def score(config: ScoreConfig) -> StageSummary:
    """Run the stage: compute missing scores, then write scores.parquet, failures.parquet and summary.json.

    Raises:
        ValueError: there is no candidates table, a reward is not known, or two rewards yield the same column.
    """
    started = time.perf_counter()
    work = _Work(config)
    skipped = len(work.wanted) - len(work.left)
    with work.journal, progress_bar("score", len(work.wanted), skipped) as bar:
        for names, jobs in work.batches():
            for result in map_jobs(jobs, ScoreActor, work.actor_settings(names), config.pool):
                bar.update(work.take(result, names))
                bar.set_postfix(failed=len(work.failures), refresh=False)
    write_table(work.table(), SCORES, config.folder / "scores.parquet")
    return finish(
        "score",
        config.folder,
        config,
        started=started,
        wanted=len(work.wanted),
        done=len(work.wanted) - len(work.failures),
        skipped=skipped,
        failures=[work.failures[key] for key in work.wanted if key in work.failures],
        versions={f"reward {name}": reward.version for name, reward in work.rewards.items()},
    )


def plan(config: ScoreConfig) -> str:
    """What a run would do, as one line."""
    work = _Work(config)
    return plan_line("score", len(work.wanted), len(work.wanted) - len(work.left), config.folder)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(ScoreConfig, plan, score, argv)


def find_rewards(specs: Sequence[str]) -> dict[str, type[Reward]]:
    """Reward classes by the name or path that the configuration gives.

    Raises:
        ValueError: none is given, one is not known, or two yield the same column.
    """
    if not specs:
        raise ValueError("rewards is empty, so there is nothing to score with. Name at least one, such as verifiable.")
    rewards = {spec: get_reward(spec) for spec in specs}
    owners: dict[str, str] = {}
    for reward in rewards.values():
        for column in reward.columns:
            if owners.setdefault(column, reward.name) != reward.name:
                raise ValueError(
                    f"The rewards {owners[column]!r} and {reward.name!r} both yield {column!r}, and the table has room "
                    "for one. Score with one of the two."
                )
    return rewards


class _Work:
    """Which scores are wanted, which are known, and the jobs that make the rest. Making it only reads."""

    def __init__(self, config: ScoreConfig) -> None:
        self._config = config
        self.rewards = find_rewards(config.rewards)
        table = read_table(
            config.output_dir / "candidates" / "candidates.parquet", CANDIDATES, "python -m pipeline.sample"
        )
        sampled = (row for row in table.select(CANDIDATES.names).to_pylist() if row["error"] is None)
        self.wanted: dict[str, Row] = {row["candidate_id"]: row for row in sampled}
        candidates = json.loads((table.schema.metadata or {}).get(b"avdpo.settings", b"null"))
        self.journal = Journal(config.folder / "journal.jsonl", {"candidates": candidates, "dtype": config.dtype})
        self._inputs = {key: self._input(row) for key, row in self.wanted.items()}
        self._known: dict[tuple[str, str], Row] = {}  # (candidate_id, reward name) -> journal row
        self._versions = {reward.name: reward.version for reward in self.rewards.values()}
        self._record(self.journal.rows)
        self.left = {key: names for key in self.wanted if (names := self._missing(key))}
        self.failures: dict[str, Failure] = {}

    def batches(self) -> Iterator[tuple[tuple[str, ...], list[Job]]]:
        """Candidates that miss the same rewards, by prompt: usually all of them at once."""
        for names in dict.fromkeys(self.left.values()):
            jobs: dict[str, Job] = {}
            for key in (key for key in self.wanted if self.left.get(key) == names):
                row = self.wanted[key]
                job = jobs.setdefault(row["prompt_id"], {"key": row["prompt_id"], "candidates": []})
                columns = ("candidate_id", "prompt", "audio_prompt", "video_path", "audio_path")
                job["candidates"].append({column: row[column] for column in columns})
            yield names, list(jobs.values())

    def actor_settings(self, names: tuple[str, ...]) -> dict[str, Any]:
        folder = self._config.output_dir.resolve() / "candidates"
        return self._config.worker_settings | {
            "rewards": list(names),
            "dtype": self._config.dtype,
            "folder": str(folder),
        }

    def take(self, result: Result, names: tuple[str, ...]) -> int:
        """Journal the scores of a job, note what failed, and return how many candidates that settles."""
        rows = result.get("rows") or self._lost_rows(result, names)
        entries = [entry for row in rows for entry in self._entries(row)]
        self.journal.append(entries)
        self._record(entries)
        for row in rows:
            if row["error"] is not None:
                key = row["candidate_id"]
                prompt_id = self.wanted[key]["prompt_id"]
                self.failures[key] = {
                    "candidate_id": key,
                    "prompt_id": prompt_id,
                    "error": row["error"],
                    "tries": result["tries"],
                }
        return len(rows)

    def table(self) -> pa.Table:
        """The scores table, in the order of the candidates table."""
        rewards = [*self.rewards.values(), *self._earlier_rewards()]
        columns = [column for reward in rewards for column in reward.columns]
        rows = [self._table_row(key, rewards) for key in self.wanted]
        metrics = [
            pa.field(column, pa.float64(), metadata={"higher_is_better": str(reward.higher_is_better[column]).lower()})
            for reward in rewards
            for column in reward.columns
        ]
        key, *notes = SCORES
        versions = json.dumps({reward.name: reward.version for reward in rewards})
        schema = pa.schema([key, *metrics, *notes], metadata={"avdpo.rewards": versions})
        assert len(set(columns)) == len(columns), "columns of different rewards do not overlap"
        return table_from_rows(rows, schema)

    def _table_row(self, key: str, rewards: Iterable[type[Reward]]) -> Row:
        known = [entry for reward in rewards if (entry := self._known.get((key, reward.name)))]
        reasons = [f"{column}: {reason}" for entry in known for column, reason in entry["reasons"].items()]
        row: Row = {"candidate_id": key, "reasons": "\n".join(reasons) or None}
        row["error"] = self.failures[key]["error"] if key in self.failures else None
        for entry in known:
            row |= entry["scores"]
        return row

    def _earlier_rewards(self) -> list[type[Reward]]:
        """Rewards that this folder was scored with before, at their present version, where columns do not clash."""
        taken = {column for reward in self.rewards.values() for column in reward.columns}
        earlier = []
        for spec in dict.fromkeys(row["spec"] for row in self.journal.rows if row["reward"] not in self._versions):
            try:
                reward = get_reward(spec)
            except (ValueError, ImportError):
                continue  # no longer installed: its scores stay in the journal
            if taken.isdisjoint(reward.columns):
                taken |= set(reward.columns)
                self._versions[reward.name] = reward.version
                earlier.append(reward)
        self._record(self.journal.rows)
        return earlier

    def _entries(self, row: Row) -> list[Row]:
        """One journal row per reward of a candidate; where something failed, only of rewards that gave every score."""
        key, rewards = row["candidate_id"], row["rewards"]
        return [
            {
                "candidate_id": key,
                "reward": reward.name,
                "spec": spec,
                "input": self._inputs[key],
                **rewards[reward.name],
            }
            for spec, reward in self.rewards.items()
            if reward.name in rewards and (row["error"] is None or not rewards[reward.name]["reasons"])
        ]

    def _record(self, entries: Iterable[Row]) -> None:
        for entry in entries:
            key, reward = entry["candidate_id"], entry["reward"]
            if entry["version"] == self._versions.get(reward) and entry["input"] == self._inputs.get(key):
                self._known[key, reward] = entry

    def _missing(self, key: str) -> tuple[str, ...]:
        return tuple(spec for spec, reward in self.rewards.items() if (key, reward.name) not in self._known)

    def _input(self, row: Row) -> str:
        """Changes when a candidate was made again as something else under the same id."""
        path = self._config.output_dir / "candidates" / row["video_path"]
        size = path.stat().st_size if path.exists() else 0  # a missing file is told by the reward suite, for its row
        return fingerprint(json.dumps([row["prompt"], row["audio_prompt"], row["seed"], size]))

    def _lost_rows(self, result: Result, names: tuple[str, ...]) -> list[Row]:
        keys = [
            key for key, row in self.wanted.items() if row["prompt_id"] == result["key"] and self.left.get(key) == names
        ]
        return [{"candidate_id": key, "error": result["lost"], "rewards": {}} for key in keys]


if __name__ == "__main__":
    sys.exit(main())
