"""The state of scoring: the scores that are wanted, the known ones, and the jobs that make the missing ones.

Known scores stay in the journal. The driver records only which scores are known, and reads them to write the table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.ids import fingerprint
from core.schema import CANDIDATES, SCORES, read_table
from core.storage import file_sizes
from jobs.journal import Journal, Row
from jobs.workers import Job, Result
from pipeline.score.columns import ScoreColumns
from pipeline.score.settings import ChosenReward, choose_rewards
from rewards.registry import get_reward

if TYPE_CHECKING:
    from pipeline.score.config import ScoreConfig

Failure = dict[str, Any]  # a row of the failures table
Names = tuple[str, ...]  # rewards, as the user named them
JOB_COLUMNS = ("candidate_id", "prompt", "audio_prompt", "video_path", "audio_path")
CHUNK_ROWS = 4096  # rows held as Python objects at a time


class ScoreWork:
    """The state of the stage. Its constructor reads files and writes none.

    Attributes:
        rewards: the rewards of this run, by the names that the user gave.
        wanted: candidate_id -> its number among the sampled candidates, in the order of their table.
        failures: candidate_id -> its row of the failures table.
    """

    def __init__(self, config: ScoreConfig) -> None:
        self._config = config
        self.rewards = choose_rewards(config)
        table = read_table(
            config.output_dir / "candidates" / "candidates.parquet", CANDIDATES, "python -m pipeline.sample"
        )
        self._candidates = table.select(CANDIDATES.names).filter(table["error"].is_null()).combine_chunks()
        ids = self._candidates["candidate_id"].to_pylist()
        self.wanted = {key: number for number, key in enumerate(ids)}
        candidates = json.loads((table.schema.metadata or {}).get(b"avdpo.settings", b"null"))
        self.journal = Journal(config.folder / "journal.jsonl", {"candidates": candidates, "dtype": config.dtype})
        self._inputs = self._read_inputs()
        self._kept = {chosen.reward.name: chosen for chosen in self.rewards.values()}
        self._earlier: dict[str, dict[str, Row]] = {}  # rewards of earlier runs: spec -> version -> last journal row
        self._missing = np.ones((len(ids), len(self.rewards)), bool)  # state at the start of this run
        self._read_journal()
        self._open = self._missing.copy()  # scores that this run has not tried
        self.failures: dict[str, Failure] = {}

    @property
    def num_left(self) -> int:
        """Number of candidates that lacked a score at the start."""
        return int(self._missing.any(1).sum())

    @property
    def num_done(self) -> int:
        """Number of candidates whose scores are all known or tried, without a failure."""
        return int((~self._open.any(1)).sum()) - len(self.failures)

    def batches(self) -> Iterator[tuple[Names, list[Job]]]:
        """Yield groups of rewards with the jobs of the candidates that lack exactly these; usually there is one group.

        With `pool_per_reward`, each group is one reward with the candidates that lack it.
        """
        specs = list(self.rewards)
        if self._config.pool_per_reward:
            groups: list[Names] = [(spec,) for spec in specs]
        else:
            patterns = dict.fromkeys(map(tuple, self._missing.tolist()))
            groups = [tuple(spec for spec, one in zip(specs, pattern, strict=True) if one) for pattern in patterns]
        for names in filter(None, groups):
            if len(members := self._members(names)):
                yield names, self._jobs(members)

    def actor_settings(self, names: Names) -> dict[str, Any]:
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

    def take(self, result: Result, names: Names) -> int:
        """Write a job's scores to the journal, record its failures, and return how many candidates it settled."""
        rows = result.get("rows") or self._lost_rows(result, names)
        self.journal.append([entry for row in rows for entry in self._entries(row)])
        numbers = [self.wanted[row["candidate_id"]] for row in rows]
        self._open[np.ix_(numbers, self._columns(names))] = False
        for row in rows:
            if row["error"] is not None:
                self._fail(row["candidate_id"], row["error"], result["tries"])
        return int((~self._open[numbers].any(1)).sum())

    def table(self) -> pa.Table:
        """Build the scores table, in the order of the candidates table."""
        scores = ScoreColumns(len(self.wanted), list(self.rewards.values()), self._earlier_rewards())
        for entry in self.journal.rows():
            if self._is_current(entry, scores.kept):
                scores.put(self.wanted[entry["candidate_id"]], entry)
        errors = [self.failures[key]["error"] if key in self.failures else None for key in self.wanted]
        made_by = {
            chosen.reward.name: {"version": chosen.version, "weights": chosen.weights, "path": chosen.weights_path}
            for chosen in scores.kept.values()
        }
        metadata = {"avdpo.rewards": json.dumps(made_by), "avdpo.protocol": self._config.protocol}
        key, *notes = SCORES
        columns = {
            "candidate_id": pa.array(self.wanted, pa.string()),
            "error": pa.array(errors, pa.string()),
            "reasons": pa.array(scores.reasons(), pa.string()),
        } | {name: pa.array(values, from_pandas=True) for name, values in scores.values.items()}  # NaN is null
        return pa.table(columns, schema=pa.schema([key, *scores.fields(), *notes], metadata=metadata))

    def _read_inputs(self) -> list[str]:
        """Return a fingerprint per candidate, which changes when another clip is made under the same id."""
        size_of, inputs = file_sizes(self._config.output_dir / "candidates"), []
        for row in _rows(self._candidates, ("prompt", "audio_prompt", "seed", "video_path")):
            size = size_of(row["video_path"]) or 0  # the reward suite reports a missing file in its row
            inputs.append(fingerprint(json.dumps([row["prompt"], row["audio_prompt"], row["seed"], size])))
        return inputs

    def _read_journal(self) -> None:
        places = {chosen.reward.name: place for place, chosen in enumerate(self.rewards.values())}
        for entry in self.journal.rows():
            if self._is_current(entry, self._kept):
                self._missing[self.wanted[entry["candidate_id"]], places[entry["reward"]]] = False
            elif entry["reward"] not in self._kept:
                self._earlier.setdefault(entry["spec"], {})[entry["version"]] = entry

    def _is_current(self, entry: Row, kept: Mapping[str, ChosenReward]) -> bool:
        """Return whether a journal row matches the present version of its reward and its candidate."""
        number, chosen = self.wanted.get(entry["candidate_id"]), kept.get(entry["reward"])
        return (
            number is not None
            and chosen is not None
            and (entry["version"], entry.get("weights")) == (chosen.version, chosen.weights)
            and entry["input"] == self._inputs[number]
        )

    def _earlier_rewards(self) -> list[ChosenReward]:
        """Return the rewards of earlier runs in this folder whose columns do not clash with this run's.

        They are kept at their present version under this run's protocol, with the weights that were used last.
        """
        taken = {column for chosen in self.rewards.values() for column in chosen.reward.columns}
        earlier = []
        for spec, versions in self._earlier.items():
            try:
                reward = get_reward(spec)
            except (ValueError, ImportError):
                continue  # not installed any more; its scores stay in the journal
            version = reward.version_under(self._config.protocol)
            if version in versions and taken.isdisjoint(reward.columns):
                taken |= set(reward.columns)
                last = versions[version]
                earlier.append(ChosenReward(spec, reward, version, last.get("weights_path"), last.get("weights")))
        return earlier

    def _entries(self, row: Row) -> list[Row]:
        """Return a journal row per reward of a candidate; after an error, only for rewards that gave every score."""
        key, rewards = row["candidate_id"], row["rewards"]
        return [
            {
                "candidate_id": key,
                "reward": name,
                "spec": spec,
                "input": self._inputs[self.wanted[key]],
                "weights": chosen.weights,
                "weights_path": chosen.weights_path,
                **rewards[name],
            }
            for spec, chosen in self.rewards.items()
            if (name := chosen.reward.name) in rewards and (row["error"] is None or not rewards[name]["reasons"])
        ]

    def _fail(self, key: str, error: str, tries: int) -> None:
        """Record why a candidate failed. Each pool may add a reason; equal reasons are kept once."""
        if key in self.failures:
            before = self.failures[key]["error"]
            error = before if error in before else f"{before}; {error}"
            tries = max(tries, self.failures[key]["tries"])
        prompt_id = self._candidates["prompt_id"][self.wanted[key]].as_py()
        self.failures[key] = {"candidate_id": key, "prompt_id": prompt_id, "error": error, "tries": tries}

    def _columns(self, names: Names) -> list[int]:
        return [place for place, spec in enumerate(self.rewards) if spec in names]

    def _members(self, names: Names) -> np.ndarray:
        """Return the numbers of the candidates that a pool with these rewards scores."""
        columns = self._columns(names)
        if self._config.pool_per_reward:
            return np.flatnonzero(self._missing[:, columns[0]])
        return np.flatnonzero((self._missing == np.isin(np.arange(len(self.rewards)), columns)).all(1))

    def _jobs(self, numbers: np.ndarray) -> list[Job]:
        """Group the candidates with these numbers into one job per prompt."""
        jobs: dict[str, Job] = {}
        for row in _rows(self._candidates.take(numbers), ("prompt_id", *JOB_COLUMNS)):
            prompt_id = row.pop("prompt_id")
            jobs.setdefault(prompt_id, {"key": prompt_id, "candidates": []})["candidates"].append(row)
        return list(jobs.values())

    def _lost_rows(self, result: Result, names: Names) -> list[Row]:
        members = self._members(names)
        is_its = pc.equal(self._candidates["prompt_id"], result["key"]).to_numpy()
        keys = self._candidates["candidate_id"].take(members[is_its[members]])
        return [{"candidate_id": key, "error": result["lost"], "rewards": {}} for key in keys.to_pylist()]


def _rows(table: pa.Table, columns: Sequence[str]) -> Iterator[Row]:
    for batch in table.select(list(columns)).to_batches(max_chunksize=CHUNK_ROWS):
        yield from batch.to_pylist()
