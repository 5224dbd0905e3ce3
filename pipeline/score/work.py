"""What scoring has to do: the scores that are wanted, those that are known, and the jobs that make the rest.

Scores that are known stay in the journal; the driver holds which they are, and reads them when it writes the table.
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
from rewards import get_reward

if TYPE_CHECKING:
    from pipeline.score.config import ScoreConfig

Failure = dict[str, Any]  # a row of the failures table
Names = tuple[str, ...]  # rewards, as the user named them
JOB_COLUMNS = ("candidate_id", "prompt", "audio_prompt", "video_path", "audio_path")
CHUNK_ROWS = 4096  # held as Python objects at a time


class ScoreWork:
    """The state of the stage. Making it only reads.

    Attributes:
        rewards: the rewards of this run by the names that were given.
        wanted: candidate_id -> its number among the candidates that were sampled, in the order of their table.
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
        self._earlier: dict[str, dict[str, Row]] = {}  # of other rewards: spec -> version -> their last journal row
        self._missing = np.ones((len(ids), len(self.rewards)), bool)  # at the start
        self._read_journal()
        self._open = self._missing.copy()  # what this run has not tried
        self.failures: dict[str, Failure] = {}

    @property
    def num_left(self) -> int:
        """Candidates that missed a score at the start."""
        return int(self._missing.any(1).sum())

    @property
    def num_done(self) -> int:
        """Candidates of which every score was known or has been tried, and nothing failed."""
        return int((~self._open.any(1)).sum()) - len(self.failures)

    def batches(self) -> Iterator[tuple[Names, list[Job]]]:
        """Rewards, and the candidates that miss exactly these, by prompt: usually all of them at once.

        With `pool_per_reward`: each reward, and the candidates that miss it.
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
        """Journal the scores of a job, note what failed, and return how many candidates that settles."""
        rows = result.get("rows") or self._lost_rows(result, names)
        self.journal.append([entry for row in rows for entry in self._entries(row)])
        numbers = [self.wanted[row["candidate_id"]] for row in rows]
        self._open[np.ix_(numbers, self._columns(names))] = False
        for row in rows:
            if row["error"] is not None:
                self._fail(row["candidate_id"], row["error"], result["tries"])
        return int((~self._open[numbers].any(1)).sum())

    def table(self) -> pa.Table:
        """The scores table, in the order of the candidates table."""
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
        """What changes when a candidate is made again as something else under the same id, for each."""
        size_of, inputs = file_sizes(self._config.output_dir / "candidates"), []
        for row in _rows(self._candidates, ("prompt", "audio_prompt", "seed", "video_path")):
            size = size_of(row["video_path"]) or 0  # a missing file is told by the reward suite, for its row
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
        """Whether a row of the journal holds what a reward gives now to a candidate as it is now."""
        number, chosen = self.wanted.get(entry["candidate_id"]), kept.get(entry["reward"])
        return (
            number is not None
            and chosen is not None
            and (entry["version"], entry.get("weights")) == (chosen.version, chosen.weights)
            and entry["input"] == self._inputs[number]
        )

    def _earlier_rewards(self) -> list[ChosenReward]:
        """Rewards that this folder was scored with before, where columns do not clash.

        They stay at their present version under this run's protocol, with the weights that were used last.
        """
        taken = {column for chosen in self.rewards.values() for column in chosen.reward.columns}
        earlier = []
        for spec, versions in self._earlier.items():
            try:
                reward = get_reward(spec)
            except (ValueError, ImportError):
                continue  # no longer installed: its scores stay in the journal
            version = reward.version_under(self._config.protocol)
            if version in versions and taken.isdisjoint(reward.columns):
                taken |= set(reward.columns)
                last = versions[version]
                earlier.append(ChosenReward(spec, reward, version, last.get("weights_path"), last.get("weights")))
        return earlier

    def _entries(self, row: Row) -> list[Row]:
        """One journal row per reward of a candidate; where something failed, only of rewards that gave every score."""
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
        """Note why a candidate failed; pools of several rewards may each have a reason, or the same one."""
        if key in self.failures:
            before = self.failures[key]["error"]
            error = before if error in before else f"{before}; {error}"
            tries = max(tries, self.failures[key]["tries"])
        prompt_id = self._candidates["prompt_id"][self.wanted[key]].as_py()
        self.failures[key] = {"candidate_id": key, "prompt_id": prompt_id, "error": error, "tries": tries}

    def _columns(self, names: Names) -> list[int]:
        return [place for place, spec in enumerate(self.rewards) if spec in names]

    def _members(self, names: Names) -> np.ndarray:
        """The numbers of the candidates that a pool with these rewards scores."""
        columns = self._columns(names)
        if self._config.pool_per_reward:
            return np.flatnonzero(self._missing[:, columns[0]])
        return np.flatnonzero((self._missing == np.isin(np.arange(len(self.rewards)), columns)).all(1))

    def _jobs(self, numbers: np.ndarray) -> list[Job]:
        """The candidates of these numbers, by prompt."""
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
