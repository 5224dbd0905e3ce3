"""Score every candidate with one or more rewards: candidates table in, scores table out.

    python -m pipeline.score --output_dir runs/first --rewards verifiable

Incremental: a score is kept under (candidate, reward name, reward version, weights), so another reward, a new version
of one, other weights, another protocol, or more candidates cost only what is missing, and no column mixes two of them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from media.cli import StageSummary
from pipeline.actors import ScoreActor
from pipeline.estimate import describe_pace, measure, warm_up_jobs, warm_up_pool
from pipeline.journal import Journal, Row
from pipeline.naming import fingerprint
from pipeline.reward_settings import ChosenReward, RewardConfig, choose_rewards
from pipeline.schema import CANDIDATES, SCORES, read_table, table_from_rows, write_table
from pipeline.stage import finish, hold, plan_line, progress_bar, run_command, setting
from pipeline.workers import Job, Result, map_jobs
from rewards import Reward, get_reward

Failure = dict[str, Any]  # a row of the failures table


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(RewardConfig):
    """Settings of `python -m pipeline.score`."""

    output_dir: Path = field(metadata={"help": "Folder of the run; candidates/ is read, scores/ is written in it."})
    dtype: str = setting("float32", "Type of the reward networks' weights, e.g. bfloat16.")

    @property
    def folder(self) -> Path:
        return self.output_dir / "scores"


def score(config: ScoreConfig) -> StageSummary:
    """Run the stage: compute missing scores, then write scores.parquet, failures.parquet and summary.json.

    Raises:
        ValueError: there is no candidates table, a reward or its weights are not found, two yield the same column, or
            another run is at work in the folder.
        StageStoppedError: a reward cannot be loaded, or the disk is full.
    """
    started = time.perf_counter()
    with hold(config.folder):
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
            versions={f"reward {spec}": chosen.version for spec, chosen in work.rewards.items()},
        )


def plan(config: ScoreConfig) -> str:
    """What a run would do, as one line."""
    work = _Work(config)
    return plan_line("score", len(work.wanted), len(work.wanted) - len(work.left), config.folder)


def estimate(config: ScoreConfig) -> str:
    """Score a few prompts, whose scores are kept, and tell what the rest will take: a line per pool. Raises as `score`.

    The disk is not told: what scoring writes is some hundred bytes per candidate and reward.
    """
    with hold(config.folder):
        work = _Work(config)
        pool = warm_up_pool(config.pool)
        lines = []
        with work.journal:
            for names, jobs in work.batches():
                few = warm_up_jobs(jobs, pool)
                results = map_jobs(few, ScoreActor, work.actor_settings(names), pool)
                pace = measure(results, partial(work.take, names=names), pool)
                left = sum(len(job["candidates"]) for job in jobs[len(few) :])
                what = f"score with {', '.join(names)}: {left} candidates left"
                lines.append(f"{what}; {describe_pace(pace, len(jobs) - len(few), config.pool)}")
        return "\n".join(lines) or "score: nothing is left to do"


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(ScoreConfig, plan, estimate, score, argv)


class _Work:
    """Which scores are wanted, which are known, and the jobs that make the rest. Making it only reads."""

    def __init__(self, config: ScoreConfig) -> None:
        self._config = config
        self.rewards = choose_rewards(config)
        table = read_table(
            config.output_dir / "candidates" / "candidates.parquet", CANDIDATES, "python -m pipeline.sample"
        )
        sampled = (row for row in table.select(CANDIDATES.names).to_pylist() if row["error"] is None)
        self.wanted: dict[str, Row] = {row["candidate_id"]: row for row in sampled}
        candidates = json.loads((table.schema.metadata or {}).get(b"avdpo.settings", b"null"))
        self.journal = Journal(config.folder / "journal.jsonl", {"candidates": candidates, "dtype": config.dtype})
        self._inputs = {key: self._input(row) for key, row in self.wanted.items()}
        self._known: dict[tuple[str, str], Row] = {}  # (candidate_id, reward name) -> journal row
        self._kept = {chosen.reward.name: chosen for chosen in self.rewards.values()}
        self._record(self.journal.rows)
        self.left = {key: names for key in self.wanted if (names := self._missing(key))}
        self._open = {key: set(names) for key, names in self.left.items()}  # of these, what this run has not tried
        self.failures: dict[str, Failure] = {}

    def batches(self) -> Iterator[tuple[tuple[str, ...], list[Job]]]:
        """Rewards, and the candidates that miss exactly these, by prompt: usually all of them at once.

        With `pool_per_reward`: each reward, and the candidates that miss it.
        """
        groups = [(spec,) for spec in self.rewards] if self._config.pool_per_reward else self.left.values()
        for names in dict.fromkeys(groups):
            jobs: dict[str, Job] = {}
            for key in self._members(names):
                row = self.wanted[key]
                job = jobs.setdefault(row["prompt_id"], {"key": row["prompt_id"], "candidates": []})
                columns = ("candidate_id", "prompt", "audio_prompt", "video_path", "audio_path")
                job["candidates"].append({column: row[column] for column in columns})
            yield names, list(jobs.values())

    def actor_settings(self, names: tuple[str, ...]) -> dict[str, Any]:
        folder = self._config.output_dir.resolve() / "candidates"
        return self._config.worker_settings | {
            "rewards": list(names),
            "reward_weights": next(filter(None, (self.rewards[name].weights_path for name in names)), None),
            "protocol": self._config.protocol,
            "dtype": self._config.dtype,
            "folder": str(folder),
            "clip_batch_size": self._config.clip_batch_size,
            "num_decoders": self._config.num_decoders,
        }

    def take(self, result: Result, names: tuple[str, ...]) -> int:
        """Journal the scores of a job, note what failed, and return how many candidates that settles."""
        rows = result.get("rows") or self._lost_rows(result, names)
        entries = [entry for row in rows for entry in self._entries(row)]
        self._record(self.journal.append(entries))
        for row in rows:
            self._open[row["candidate_id"]] -= set(names)
            if row["error"] is not None:
                self._fail(row["candidate_id"], row["error"], result["tries"])
        return sum(not self._open[row["candidate_id"]] for row in rows)

    def table(self) -> pa.Table:
        """The scores table, in the order of the candidates table."""
        kept = [*self.rewards.values(), *self._earlier_rewards()]
        rewards = [chosen.reward for chosen in kept]
        rows = [self._table_row(key, rewards) for key in self.wanted]
        metrics = [
            pa.field(column, pa.float64(), metadata={"higher_is_better": str(reward.higher_is_better[column]).lower()})
            for reward in rewards
            for column in reward.columns
        ]
        key, *notes = SCORES
        made_by = {
            chosen.reward.name: {"version": chosen.version, "weights": chosen.weights, "path": chosen.weights_path}
            for chosen in kept
        }
        metadata = {"avdpo.rewards": json.dumps(made_by), "avdpo.protocol": self._config.protocol}
        return table_from_rows(rows, pa.schema([key, *metrics, *notes], metadata=metadata))

    def _table_row(self, key: str, rewards: Iterable[type[Reward]]) -> Row:
        known = [entry for reward in rewards if (entry := self._known.get((key, reward.name)))]
        reasons = [f"{column}: {reason}" for entry in known for column, reason in entry["reasons"].items()]
        row: Row = {"candidate_id": key, "reasons": "\n".join(reasons) or None}
        row["error"] = self.failures[key]["error"] if key in self.failures else None
        for entry in known:
            row |= entry["scores"]
        return row

    def _earlier_rewards(self) -> list[ChosenReward]:
        """Rewards that this folder was scored with before, where columns do not clash.

        They stay at their present version under this run's protocol, with the weights that were used last.
        """
        taken = {column for chosen in self.rewards.values() for column in chosen.reward.columns}
        earlier = []
        for spec in dict.fromkeys(row["spec"] for row in self.journal.rows if row["reward"] not in self._kept):
            try:
                reward = get_reward(spec)
            except (ValueError, ImportError):
                continue  # no longer installed: its scores stay in the journal
            version = reward.version_under(self._config.protocol)
            rows = [row for row in self.journal.rows if (row["spec"], row["version"]) == (spec, version)]
            if rows and taken.isdisjoint(reward.columns):
                taken |= set(reward.columns)
                chosen = ChosenReward(spec, reward, version, rows[-1].get("weights_path"), rows[-1].get("weights"))
                self._kept[reward.name] = chosen
                earlier.append(chosen)
        self._record(self.journal.rows)
        return earlier

    def _entries(self, row: Row) -> list[Row]:
        """One journal row per reward of a candidate; where something failed, only of rewards that gave every score."""
        key, rewards = row["candidate_id"], row["rewards"]
        return [
            {
                "candidate_id": key,
                "reward": name,
                "spec": spec,
                "input": self._inputs[key],
                "weights": chosen.weights,
                "weights_path": chosen.weights_path,
                **rewards[name],
            }
            for spec, chosen in self.rewards.items()
            if (name := chosen.reward.name) in rewards and (row["error"] is None or not rewards[name]["reasons"])
        ]

    def _fail(self, key: str, error: str, tries: int) -> None:
        """Note why a candidate failed; pools of several rewards may each have a reason, or the same one."""
        if key in self.failures:
            before = self.failures[key]["error"]
            error = before if error in before else f"{before}; {error}"
            tries = max(tries, self.failures[key]["tries"])
        prompt_id = self.wanted[key]["prompt_id"]
        self.failures[key] = {"candidate_id": key, "prompt_id": prompt_id, "error": error, "tries": tries}

    def _record(self, entries: Iterable[Row]) -> None:
        for entry in entries:
            key, kept = entry["candidate_id"], self._kept.get(entry["reward"])
            if (
                kept is not None
                and (entry["version"], entry.get("weights")) == (kept.version, kept.weights)
                and entry["input"] == self._inputs.get(key)
            ):
                self._known[key, entry["reward"]] = entry

    def _missing(self, key: str) -> tuple[str, ...]:
        return tuple(spec for spec, chosen in self.rewards.items() if (key, chosen.reward.name) not in self._known)

    def _members(self, names: tuple[str, ...]) -> list[str]:
        """The candidates that a pool with these rewards scores."""
        if self._config.pool_per_reward:
            return [key for key in self.wanted if names[0] in self.left.get(key, ())]
        return [key for key in self.wanted if self.left.get(key) == names]

    def _input(self, row: Row) -> str:
        """Changes when a candidate was made again as something else under the same id."""
        path = self._config.output_dir / "candidates" / row["video_path"]
        size = path.stat().st_size if path.exists() else 0  # a missing file is told by the reward suite, for its row
        return fingerprint(json.dumps([row["prompt"], row["audio_prompt"], row["seed"], size]))

    def _lost_rows(self, result: Result, names: tuple[str, ...]) -> list[Row]:
        keys = [key for key in self._members(names) if self.wanted[key]["prompt_id"] == result["key"]]
        return [{"candidate_id": key, "error": result["lost"], "rewards": {}} for key in keys]


if __name__ == "__main__":
    sys.exit(main())
