"""The command that trains the learned rewards of the tiny preset: `python -m synthetic.train_rewards --output DIR`.

Each reward is trained on Bounce and its corruptions, and then measured on held-out scenes. Finished
rewards are not repeated, and training continues from its last checkpoint, so the same command continues an
interrupted run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.atomic import atomic_write_text
from core.cli import echo, parse_config, save_config

TASKS = {  # reward -> class of its task in synthetic.train_rewards.tasks
    "audiobox": "AudioBoxTask",
    "videoalign": "VideoAlignTask",
    "imagebind": "ImageBindTask",
    "synchformer": "SynchformerTask",
}


@dataclass(frozen=True, kw_only=True)
class TrainRewardsConfig:
    """Settings of `python -m synthetic.train_rewards`; recipes/tiny/rewards.yaml made the shipped ones."""

    output: Path = field(metadata={"help": "folder of the finished rewards: a subfolder for each"})
    work_dir: Path = field(default=Path("runs/rewards"), metadata={"help": "folder of the checkpoints"})
    rewards: list[str] = field(
        default_factory=lambda: list(TASKS), metadata={"help": f"which to train, of {', '.join(TASKS)}"}
    )
    num_steps: dict[str, int] = field(default_factory=dict, metadata={"help": "steps of each reward"})
    learning_rate: float = field(default=2e-3, metadata={"help": "peak learning rate of Muon"})
    num_trials: int = field(default=200, metadata={"help": "held-out scenes of the measurements; 0: none"})
    seed: int = field(default=0, metadata={"help": "seed of the initial weights"})

    def __post_init__(self) -> None:
        for name in (*self.rewards, *self.num_steps):
            if name not in TASKS:
                raise ValueError(f"{name!r} is not a reward that this command trains: choose from {', '.join(TASKS)}.")
        for name in self.rewards:
            if self.num_steps.get(name, 0) < 1:
                raise ValueError(f"num_steps has no number of steps for {name!r}: give it one, or leave {name!r} out.")


def train_rewards(config: TrainRewardsConfig) -> None:
    """Train the missing rewards, write them as presets, and print how well they detect held-out corruptions."""
    from synthetic.train_rewards import tasks  # late: these import torch
    from synthetic.train_rewards.training import train
    from synthetic.train_rewards.trials import report, run_trials

    config.work_dir.mkdir(parents=True, exist_ok=True)
    save_config(config, config.work_dir / "config.yaml")
    for name in config.rewards:
        task, done = getattr(tasks, TASKS[name])(), config.work_dir / name / "finished"
        if not done.is_file():
            network: Any = train(
                task, config.num_steps[name], config.learning_rate, config.work_dir / name, config.seed
            )
            task.save(network, config.output / name)
            atomic_write_text(done, f"{config.num_steps[name]}\n")
        if config.num_trials:
            echo(report(run_trials(name, str(config.output / name), config.num_trials)))


def main(argv: Sequence[str] | None = None) -> int:
    try:
        train_rewards(parse_config(TrainRewardsConfig, argv))
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
