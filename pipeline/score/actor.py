"""The Ray worker that scores candidates. Each worker loads the rewards once; the driver never loads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from core.devices import limit_threads
from core.storage import resolve_in, storage_path

if TYPE_CHECKING:
    from jobs.workers import Job, Result
    from rewards.decode import ClipFile
    from rewards.suite import ScoreRow


class ScoreActor:
    """Worker that scores the candidates of a prompt. Each clip is decoded once, ahead of its scoring.

    Settings: rewards (names), reward_weights, protocol, device, dtype, num_threads, folder (of the candidates table),
    clip_batch_size, num_decoders.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        from rewards.suite import RewardSuite

        self._protocol = settings["protocol"]
        self._suite = RewardSuite.load(
            settings["rewards"],
            weights=settings["reward_weights"],
            device=settings["device"],
            dtype=settings["dtype"],
            protocol=self._protocol,
            batch_size=settings["clip_batch_size"],
            num_decoders=settings["num_decoders"],
        )
        self._folder = storage_path(settings["folder"])
        limit_threads(settings["num_threads"])

    def run_all(self, jobs: Sequence[Job]) -> Iterator[Result]:
        """Yield a result per job: for each candidate, scores and reasons by reward, and its error if it failed."""
        rows = self._suite.iter_batches(batch for job in jobs for batch in self._batches(job))
        for job in jobs:
            finished = [row for _ in self._batches(job) for row in next(rows)]
            yield {"key": job["key"], "rows": [self._result_row(row) for row in finished]}

    def _batches(self, job: Job) -> list[list[ClipFile]]:
        """Split one prompt's clips into batches. Batches never mix prompts, so that a crash concerns one prompt."""
        from rewards.base import Prompt
        from rewards.decode import ClipFile

        files = [
            ClipFile(
                candidate["candidate_id"],
                resolve_in(self._folder, candidate["video_path"]),
                resolve_in(self._folder, candidate["audio_path"]) if candidate["audio_path"] else None,
                Prompt(job["key"], candidate["prompt"], candidate["audio_prompt"]),
            )
            for candidate in job["candidates"]
        ]
        size = self._suite.batch_size
        return [files[start : start + size] for start in range(0, len(files), size)]

    def _result_row(self, row: ScoreRow) -> dict[str, Any]:
        scores = {
            reward.name: {
                "version": reward.version_under(self._protocol),
                "scores": {column: row.scores[column] for column in reward.columns},
                "reasons": {column: row.reasons[column] for column in reward.columns if column in row.reasons},
            }
            for reward in self._suite.rewards
        }
        return {"candidate_id": row.candidate_id, "error": row.error, "rewards": scores}
