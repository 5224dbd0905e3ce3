"""Ways to align the starting model. Each function trains one and returns the folder of the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from benchmarks.alignment_gains.workshop import Workshop
from benchmarks.bounce_runs import TRAINING_SEED, check_status
from core.atomic import atomic_write_text
from dpo.train.command import main as train_preferences
from model.train.command import main as train_clips
from pipeline.rounds.command import main as run_rounds

Method = Callable[[Workshop, int, Path], Path]

RECIPES = Path("recipes/tiny")
ROUNDS = {"dpo": "rounds.yaml", "nft": "rounds_nft.yaml"}
ROUNDS_SEED = TRAINING_SEED + 5_000  # first scene of the captions of rounds
COARSE_TO_FINE = ("0.24-0.48", "0.16-0.32", "0.08-0.16")


def nft(**changes: Any) -> Method:
    """Return one round of negative-aware fine-tuning on the pool's groups, with changes to the recipe."""

    def train(workshop: Workshop, seed: int, folder: Path) -> Path:
        return _train(workshop.config.model, workshop.groups(), "nft.yaml", seed, folder, changes)

    return train


def dpo(strategy: str, ground_truth: str = "never") -> Method:
    """Return DPO on the pool's pairs, ranked by a strategy."""

    def train(workshop: Workshop, seed: int, folder: Path) -> Path:
        pairs = workshop.pairs(strategy, ground_truth)
        return _train(workshop.config.model, pairs, "dpo_groups.yaml", seed, folder, {})

    return train


def constructed(stages: tuple[str, ...] = COARSE_TO_FINE) -> Method:
    """Return DPO on clean clips against the same clips with shifted sound."""

    def train(workshop: Workshop, seed: int, folder: Path) -> Path:
        return _train(workshop.config.model, workshop.constructed(stages), "dpo_constructed.yaml", seed, folder, {})

    return train


def constructed_then(objective: str) -> Method:
    """Return constructed pairs first, then DPO or negative-aware fine-tuning on the pool."""

    def train(workshop: Workshop, seed: int, folder: Path) -> Path:
        first = constructed()(workshop, seed, folder / "constructed")
        if objective == "nft":
            return _train(str(first), workshop.groups(), "nft.yaml", seed, folder / "nft", {})
        pairs = workshop.pairs("modality_micro")
        return _train(str(first), pairs, "dpo_groups.yaml", seed, folder / "dpo", {})

    return train


def winners(workshop: Workshop, seed: int, folder: Path) -> Path:
    """Train further on the best candidates alone, with the loss of stage 2."""
    place = ["--model", workshop.config.model, "--dataset", str(workshop.winners()), "--output_dir", str(folder)]
    check_status(train_clips(["--config", str(RECIPES / "winners.yaml"), *place, "--seed", str(seed)]))
    return folder


def rounds(objective: str, **changes: Any) -> Method:
    """Return rounds of sampling and training, with changes to the training of each round."""

    def train(workshop: Workshop, seed: int, folder: Path) -> Path:
        config = workshop.config
        prompts = workshop.prompts("rounds", config.rounds * config.round_prompts, ROUNDS_SEED)
        recipe = yaml.safe_load((RECIPES / ROUNDS[objective]).read_text(encoding="utf-8"))
        recipe["preferences"] |= {
            "num_candidates": config.group_size,
            "guidance_scale": config.guidance_scale,
            "num_actors": config.num_workers,
        }
        recipe["training"] |= changes | {"seed": seed}
        settings = folder.parent / f"{folder.name}.yaml"
        atomic_write_text(settings, yaml.safe_dump(recipe, sort_keys=False))
        place = ["--model", config.model, "--prompts", str(prompts), "--output_dir", str(folder)]
        size = ["--rounds", str(config.rounds), "--prompts_per_round", str(config.round_prompts)]
        check_status(run_rounds(["--config", str(settings), *place, *size, "--seed", str(seed)]))
        return folder / f"round-{config.rounds}" / "model"

    return train


def _train(model: str, dataset: Path, recipe: str, seed: int, folder: Path, changes: dict[str, Any]) -> Path:
    place = ["--model", model, "--dataset", str(dataset), "--output_dir", str(folder), "--seed", str(seed)]
    flags = [part for name, value in changes.items() for part in (f"--{name}", str(value))]
    check_status(train_preferences(["--config", str(RECIPES / recipe), *place, *flags]))
    return folder
