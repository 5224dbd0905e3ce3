"""Scoring of the samples of a training run, by the rewards that ranked the pairs and by held-out rewards.

A run can be stopped when the held-out scores decline.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from core.atomic import atomic_write_text
from dpo.train.config import TrainConfig
from model.train.samples import samples_folder

if TYPE_CHECKING:
    from dpo.train.preference_trainer import PreferenceTrainer
    from rewards.suite import RewardSuite

SCORES_NAME = "scores.json"  # in the folder of a step's samples
GAIN, DECLINES = "eval_held_out/gain", "eval_held_out/declines"  # declines: consecutive evaluations below the start
Scores = dict[str, list[float | None]]  # column -> one score per prompt

logger = logging.getLogger(__name__)


class RewardWatcher(TrainerCallback):
    """Logs `eval_scores/<column>` and `eval_held_out/<column>`, means over the prompts, at every evaluation.

    There is also an evaluation before the first step. `eval_held_out/gain` is the improvement since that evaluation:
    the mean over prompts and held-out columns, in standard deviations of the first scores over the prompts. Prompts
    and seeds are the same at every evaluation, so a change is due to the model. Must be added after `SampleWriter`.
    """

    def __init__(self, trainer: PreferenceTrainer, config: TrainConfig) -> None:
        """Load the rewards, in the first process only.

        Raises:
            ValueError: if a reward is unknown, or its package or weights are missing.
        """
        from rewards.registry import MissingPackageError, expand_names, get_reward
        from rewards.suite import RewardSuite

        self.trainer, self.config = trainer, config
        groups = {"eval_scores": config.eval_rewards, "eval_held_out": config.held_out_rewards}
        groups = {group: expand_names(names) for group, names in groups.items() if names}
        self.suites: dict[str, RewardSuite] = {}
        try:
            classes = {group: [get_reward(name) for name in names] for group, names in groups.items()}
            if trainer.is_world_process_zero():
                for group, names in groups.items():
                    device = str(trainer.args.device)
                    self.suites[group] = RewardSuite.load(names, weights=config.reward_weights, device=device)
        except MissingPackageError as error:
            raise ValueError(str(error)) from error
        self.names = [
            f"{group}/{column}" for group, found in classes.items() for one in found for column in one.columns
        ]
        self.names += [GAIN, DECLINES] * ("eval_held_out" in groups)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step == 0:
            self.trainer.evaluate()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        logs: dict[str, float] = {}
        if state.is_world_process_zero:
            with torch.random.fork_rng():
                logs = self._measure(args, state.global_step)
        logs = self._share(logs)
        self.trainer.log(logs)
        if self.config.stop_on_decline is not None and logs.get(DECLINES, 0) >= 2:
            control.should_training_stop = True

    def _measure(self, args: TrainingArguments, step: int) -> dict[str, float]:
        """Score the samples of a step, write the scores beside them, and return their means for the log."""
        folder = samples_folder(args, step)
        scores = {group: self._score(suite, folder) for group, suite in self.suites.items()}
        logs = {
            f"{group}/{column}": float(np.mean(known))
            for group, columns in scores.items()
            for column, values in columns.items()
            if (known := [value for value in values if value is not None])
        }
        if "eval_held_out" in scores:
            start = _read(samples_folder(args, 0))["scores"] if step else scores
            better = self.suites["eval_held_out"].higher_is_better
            logs[GAIN] = standardised_gain(start["eval_held_out"], scores["eval_held_out"], better)
            # Counted from the files, so that a resumed run continues the count.
            previous = [path for path in folder.parent.glob(f"step-*/{SCORES_NAME}") if path.parent.name < folder.name]
            count = _read(max(previous).parent)["declines"] if previous else 0
            logs[DECLINES] = count + 1 if logs[GAIN] < -(self.config.stop_on_decline or 0.0) else 0
        record = {"scores": scores, "declines": logs.get(DECLINES, 0)}
        atomic_write_text(folder / SCORES_NAME, json.dumps(record, indent=2) + "\n")
        return logs

    def _score(self, suite: RewardSuite, folder: Path) -> Scores:
        from rewards.base import Prompt
        from rewards.decode import ClipFile

        files = [
            ClipFile(str(i), folder / f"{i}.mp4", folder / f"{i}.wav", Prompt(str(i), prompt))
            for i, prompt in enumerate(self.config.sample_prompts)
        ]
        rows = suite.score_files(files)
        for row in rows:
            if row.error:
                logger.warning("Sample %s of %s has no score: %s", row.candidate_id, folder.name, row.error)
        return {column: [row.scores[column] for row in rows] for column in suite.columns}

    def _share(self, logs: dict[str, float]) -> dict[str, float]:
        """Return the first process's numbers in all processes."""
        values = torch.tensor([[logs.get(name, 0.0), float(name in logs)] for name in self.names], dtype=torch.float64)
        shared = self.trainer.sum_over_processes(values).tolist()
        return {name: value for name, (value, known) in zip(self.names, shared, strict=True) if known}


def standardised_gain(start: Scores, now: Scores, higher_is_better: Mapping[str, bool]) -> float:
    """Return the mean improvement over prompts and columns, in standard deviations of `start` over the prompts.

    Columns that do not vary, and prompts without both scores, are left out; the result is 0 if nothing is left.
    """
    changes: list[float] = []
    for column, before in start.items():
        known = [value for value in before if value is not None]
        spread = float(np.std(known)) if known else 0.0
        if spread > 0:
            sign = 1 if higher_is_better[column] else -1
            changes += [sign * (b - a) / spread for a, b in _both(before, now[column])]
    return float(np.mean(changes)) if changes else 0.0


def _both(before: Sequence[float | None], after: Sequence[float | None]) -> list[tuple[float, float]]:
    return [(a, b) for a, b in zip(before, after, strict=True) if a is not None and b is not None]


def _read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / SCORES_NAME).read_text(encoding="utf-8"))
