"""Choice of the tiny preset's sampler: `python -m benchmarks.sampler_settings --output_dir runs/sampler`.

Samples validation captions with one setting after another and compares each with the preset's defaults, on the same
captions and seeds. Guidance is searched first, then steps and timestep shift with the best guidance. Finished settings
are kept, so the command continues an interrupted run.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.bounce_runs import VALIDATION_SEED, compare, evaluate, make_prompts, markdown_table
from core.cli import parse_config
from evaluation.compare.figures import ComparisonRow

GUIDANCE = (1.0, 1.5, 2.0)
STEPS = (8, 12, 24)
SHIFTS = (5.0, 20.0)


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """Settings of `python -m benchmarks.sampler_settings`."""

    output_dir: Path = field(metadata={"help": "folder for samples, scores and comparisons"})
    model: str = field(default="tiny", metadata={"help": "model to sample from"})
    num_prompts: int = field(default=200, metadata={"help": "validation captions, two samples each"})
    num_workers: int = field(default=2, metadata={"help": "processes that sample and score"})


class Search:
    """The settings tried so far, each compared with the model's defaults."""

    def __init__(self, config: SamplerConfig) -> None:
        self._config = config
        self._prompts = make_prompts(
            config.output_dir / "prompts", config.num_prompts, VALIDATION_SEED, config.num_workers
        )
        self._baseline = self._sample("defaults", {})
        self.rows: list[tuple[str, dict[str, ComparisonRow]]] = []

    def overall(self, sampling: dict[str, Any]) -> float:
        """Try one setting, print the table, and return the overall gain over the defaults."""
        name = " ".join(f"{key} {value:g}" for key, value in sampling.items())
        figures = compare(self._baseline, self._sample(name.replace(" ", "-"), sampling))
        self.rows.append((name, figures))
        print(markdown_table(self.rows, "setting"), flush=True)
        return figures["overall"].difference or 0.0

    def _sample(self, name: str, sampling: dict[str, Any]) -> Path:
        config = self._config
        return evaluate(self._prompts, config.model, config.output_dir / name, config.num_workers, **sampling)


def main(argv: Sequence[str] | None = None) -> int:
    config = parse_config(SamplerConfig, argv)
    search = Search(config)
    best = max(({"guidance_scale": value} for value in GUIDANCE), key=search.overall)
    for further in _further():
        search.overall(best | further)
    return 0


def _further() -> Iterator[dict[str, float]]:
    yield from ({"num_inference_steps": value} for value in STEPS)
    yield from ({"shift_scale": value} for value in SHIFTS)


if __name__ == "__main__":
    sys.exit(main())
