"""The data half of the loop as one command: sample, score, rank and report in one process with one Ray session.

    python -m pipeline.run --config recipes/tiny/pipeline.yaml

Each stage makes only what is missing, so the same command continues a run that was stopped at any moment.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from core.cli import config_to_yaml, echo, parse_config
from core.storage import is_local
from jobs.stage import exit_status, setting, stopped_status
from jobs.stops import StageStoppedError
from pipeline.rank.config import RankConfig, RankSettings
from pipeline.sample import command as sample
from pipeline.sample.config import SampleConfig
from pipeline.score import command as score
from pipeline.score.config import ScoreConfig
from pipeline.score.settings import RewardConfig, choose_rewards

STAGES = ("sample", "score", "rank", "report")

Config = TypeVar("Config", SampleConfig, ScoreConfig, RankConfig)


@dataclass(frozen=True, kw_only=True)
class RunConfig(SampleConfig, RewardConfig, RankSettings):
    """Settings of `python -m pipeline.run`: those of every stage. Worker settings apply to sampling and scoring."""

    stages: list[str] = field(
        default_factory=lambda: list(STAGES), metadata={"help": f"Stages to run, in this order: {', '.join(STAGES)}."}
    )
    title: str = setting("Preference pairs", "Heading of the report.")

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = [name for name in self.stages if name not in STAGES]
        if unknown or not self.stages:
            raise ValueError(f"stages is {self.stages}, but must name some of {', '.join(STAGES)}.")

    def of(self, config_class: type[Config]) -> Config:
        """Return the settings of one stage."""
        names = [item.name for item in dataclasses.fields(config_class)]
        return config_class(**{name: getattr(self, name) for name in names})


def run(config: RunConfig) -> int:
    """Run the stages. Returns the exit status: 0, or 1 once a stage has more failed rows than `max_failures`."""
    _check(config)
    results: list[str] = []
    for name in (name for name in STAGES if name in config.stages):
        status = _run_stage(name, config, results)
        if status:
            echo(f"{name}: more failed rows than max_failures ({config.max_failures}), so the run stops here")
            return status
    for line in results:
        echo(line)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    config = parse_config(RunConfig, argv)
    echo(config_to_yaml(config))
    try:
        if config.dry_run or config.estimate:
            (_plan if config.dry_run else _estimate)(config)
            return 0
        return run(config)
    except (ValueError, StageStoppedError, KeyboardInterrupt) as error:
        return stopped_status(error)


def _check(config: RunConfig) -> None:
    """Check the settings of later stages first, so that a mistake in them is found before hours of work."""
    if "score" in config.stages:
        choose_rewards(config)
    if "rank" in config.stages:
        config.of(RankConfig)


def _run_stage(name: str, config: RunConfig, results: list[str]) -> int:
    if name == "sample":
        return exit_status(sample.sample(config.of(SampleConfig)), config)
    if name == "score":
        return exit_status(score.score(config.of(ScoreConfig)), config)
    if name == "rank":
        from pipeline.rank.command import rank  # late: imports pandas

        rank(config.of(RankConfig))
        results.append(f"pairs: {config.output_dir / 'pairs'}")
    elif not is_local(config.output_dir):
        results.append(
            f"report: not made, because the page shows clips from a local folder. Copy the run first: `aws s3 sync "
            f"{config.output_dir} DIR --exclude '*.safetensors'`, then `python -m pipeline.report --output_dir DIR`."
        )
    else:
        from pipeline.report.command import ReportConfig, run_report  # imported late: needs a template engine

        run_report(ReportConfig(output_dir=config.output_dir, title=config.title))
        results.append(f"report: {config.output_dir / 'report' / 'index.html'}")
    return 0


def _plan(config: RunConfig) -> None:
    """Print one line per stage. A stage whose input does not exist yet has everything to do."""
    _check(config)
    if "sample" in config.stages:
        echo(sample.plan(config.of(SampleConfig)))
    if "score" in config.stages:
        ready = (config.output_dir / "candidates" / "candidates.parquet").is_file()
        echo(score.plan(config.of(ScoreConfig)) if ready else "score: everything to do, after sample")
    if "rank" in config.stages:
        from pipeline.rank import command as rank

        ready = (config.output_dir / "scores" / "scores.parquet").is_file()
        echo(rank.plan(config.of(RankConfig)) if ready else "rank: everything to do, after score")


def _estimate(config: RunConfig) -> None:
    """Print time and disk estimates of sampling and scoring; ranking takes seconds."""
    _check(config)
    if "sample" in config.stages:
        echo(sample.estimate(config.of(SampleConfig)))
    if "score" in config.stages:
        ready = (config.output_dir / "candidates" / "candidates.parquet").is_file()
        echo(score.estimate(config.of(ScoreConfig)) if ready else "score: can be estimated once sample has run")


if __name__ == "__main__":
    sys.exit(main())
