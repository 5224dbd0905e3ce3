"""Settings of `python -m pipeline.rounds`, and the settings of each round's stages that follow from them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jobs.stage import WorkerConfig, setting
from model.prepare.config import PrepareOptions
from model.presets import PRESETS
from model.train.run_state import comparable

Objective = Literal["dpo", "nft"]

EVALUATION_SEED = 1_000_000  # used by no round
TRAINING_SEED = 42  # seed of the first round, as published
# Settings that each round sets itself; a user's value would be lost silently.
OWN_SETTINGS = {
    "preferences": ("prompts", "output_dir", "model", "seed", "dry_run", "estimate"),
    "preparation": ("pairs", "groups", "output", "model", "shard", "dry_run"),
    "training": (
        *("objective", "model", "dataset", "replay", "replay_share"),
        *("output_dir", "resume_from_checkpoint", "dry_run"),
    ),
    "evaluation": ("prompts", "output_dir", "model", "stages", "dry_run", "estimate"),
}
_ROWS = {"model", "dtype", "output", "retry_failed"}
# Settings that may change between two calls, because they do not change a model.
NEUTRAL = {
    "preferences": {item.name for item in dataclasses.fields(WorkerConfig)} | {"stages", "title"},
    "preparation": {item.name for item in dataclasses.fields(PrepareOptions)} - _ROWS,
}


@dataclass(frozen=True, kw_only=True)
class RoundsConfig:
    """Settings of `python -m pipeline.rounds`."""

    prompts: Path = field(metadata={"help": "Prompts table, as for pipeline.run."})
    output_dir: Path = field(metadata={"help": "Folder of the run; round-1/, round-2/, ... are written in it."})
    objective: Objective = field(
        default="dpo",
        metadata={"help": "dpo: train on ranked pairs; nft: on all candidates of a prompt, weighted by their rewards."},
    )
    rounds: int = setting(3, "Number of rounds. If an earlier call made fewer, the new rounds continue from its last.")
    model: str = setting("tiny", "Model that the first round starts from: preset name, model or adapter folder.")
    seed: int = setting(
        0,
        "Of the prompts of each round; round k samples with the run seed seed + k - 1, and trains with the seed of "
        "training + k - 1.",
    )
    prompts_per_round: int | None = setting(
        None,
        "Prompts of a round, the next ones of one shuffled order, none of them twice; by default all in every round, "
        "with new candidates.",
    )
    replay_share: float = setting(
        0.0, "With objective nft: share of a round's training rows that come from the candidates of earlier rounds."
    )
    stop_on_decline: bool = setting(
        False, "Stop when the held-out judges find a round worse than the best one before, by an interval below 0."
    )
    preferences: dict = field(
        default_factory=dict,
        metadata={"help": "Settings of pipeline.run, as '{num_candidates: 3, rewards: [verifiable]}'."},
    )
    preparation: dict = field(default_factory=dict, metadata={"help": "Settings of dpo.prepare."})
    training: dict = field(
        default_factory=dict, metadata={"help": "Settings of dpo.train, as '{max_steps: 100, learning_rate: 1.0e-4}'."}
    )
    held_out: Path | None = field(
        default=None, metadata={"help": "Prompts table that every round's model is compared with the first one on."}
    )
    evaluation: dict = field(
        default_factory=dict,
        metadata={
            "help": "Settings of pipeline.run for the held-out prompts, where they differ from preferences; by default "
            "one candidate per prompt, without ground truth."
        },
    )
    dry_run: bool = setting(False, "Check the settings, print what is left to do, and stop.")

    def __post_init__(self) -> None:
        for name in ("rounds", "prompts_per_round"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} is {value}, but must be at least 1.")
        for name, own in OWN_SETTINGS.items():
            if given := [key for key in own if key in getattr(self, name)]:
                raise ValueError(f"{name} sets {given[0]}, which every round sets by itself: leave it out.")
        if not 0 <= self.replay_share < 1 or (self.replay_share and self.objective != "nft"):
            raise ValueError(
                f"replay_share is {self.replay_share} with objective {self.objective}: give a share in [0, 1), and set "
                "objective to nft, because pairs of earlier rounds are not replayed."
            )
        if self.stop_on_decline and self.held_out is None:
            raise ValueError("stop_on_decline needs prompts to judge the rounds on: give held_out.")

    @property
    def recorded(self) -> dict[str, Any]:
        """Return the settings that decide the models, as one flat dictionary of JSON values."""
        values: dict[str, Any] = {
            "prompts": str(self.prompts.resolve()),
            "model": self.first_model,
            "seed": self.seed,
            "prompts_per_round": self.prompts_per_round,
        }
        if self.objective == "nft":
            values |= {"objective": self.objective, "replay_share": self.replay_share}
        for name in ("preferences", "preparation", "training"):
            chosen = {key: value for key, value in getattr(self, name).items() if key not in NEUTRAL.get(name, ())}
            chosen = comparable(chosen) if name == "training" else chosen
            values |= {f"{name}.{key}": value for key, value in chosen.items()}
        return values

    @property
    def first_model(self) -> str:
        """Return the starting model, independent of the working directory."""
        return self.model if self.model in PRESETS else str(Path(self.model).resolve())

    def folder(self, number: int) -> Path:
        """Return the folder of a round; 0 gives the folder for the starting model's evaluation."""
        return self.output_dir / (f"round-{number}" if number else "initial")

    def model_of(self, number: int) -> str:
        """Return the model that a round ends with, which the next round begins with; 0 gives the starting model."""
        return str((self.folder(number) / "model").resolve()) if number else self.first_model

    def stages(self, number: int) -> dict[str, dict[str, Any]]:
        """Return the settings of a round's commands: preferences, preparation, training, evaluation."""
        folder, before = self.folder(number), self.model_of(number - 1)
        sampled = {"prompts": folder / "prompts.parquet", "output_dir": folder / "preferences", "model": before}
        prepared = {"output": folder / "training", "model": before} | self._source(folder / "preferences")
        trained = {"dataset": folder / "training", "output_dir": folder / "model", "model": before}
        settings = {
            "preferences": self._preference_defaults() | self.preferences | sampled | {"seed": self.seed + number - 1},
            "preparation": self.preparation | prepared,
            "training": self.training
            | trained
            | self._objective_settings(number)
            | {"seed": self.training.get("seed", TRAINING_SEED) + number - 1, "resume_from_checkpoint": "latest"},
        }
        return {name: _plain(values) for name, values in settings.items()} | self.held_out_stage(number)

    def _preference_defaults(self) -> dict[str, Any]:
        if self.objective == "nft":  # groups need no ranking, and ground truth would take most of the advantage
            return {"stages": ["sample", "score"], "include_ground_truth": False}
        return {"stages": ["sample", "score", "rank"]}

    def _source(self, preferences: Path) -> dict[str, Path]:
        return {"groups": preferences} if self.objective == "nft" else {"pairs": preferences / "pairs"}

    def _objective_settings(self, number: int) -> dict[str, Any]:
        if self.objective == "dpo":
            return {}
        earlier = [str(self.folder(before) / "training") for before in range(1, number)]
        replay = {"replay": earlier, "replay_share": self.replay_share} if self.replay_share and earlier else {}
        return {"objective": self.objective} | replay

    def held_out_stage(self, number: int) -> dict[str, dict[str, Any]]:
        """Return the settings to sample and score held-out prompts with a round's model, always with the same seeds."""
        if self.held_out is None:
            return {}
        own = {"num_candidates": 1, "include_ground_truth": False, "seed": EVALUATION_SEED}
        paths = {"prompts": self.held_out, "output_dir": self.folder(number) / "evaluation"}
        chosen = self.preferences | own | self.evaluation | {"stages": ["sample", "score"]}
        return {"evaluation": _plain(chosen | paths | {"model": self.model_of(number)})}


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}
