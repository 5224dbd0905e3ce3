"""Gains of preference training on Bounce: `python -m benchmarks.dpo_gains --output_dir runs/gains`.

The tiny preset samples candidates for captions, the verifiable rewards score them, and pairs are ranked with each of
the published strategies. Each variant is trained on its pairs and its adapter is scaled; the model is then compared
with the starting model on held-out captions with the same seeds. An interrupted run can be continued; finished parts
are kept.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from core.atomic import atomic_write_text
from core.cli import parse_config
from dpo.prepare import command as prepare
from dpo.train.command import main as train
from evaluation.compare.figures import ComparisonRow, compare_all
from evaluation.compare.render import comparison_json
from evaluation.compare.tables import read_pairs
from model.export.command import main as export
from pipeline.rank.pairs_folder import read_report
from pipeline.run import RunConfig
from pipeline.run import run as run_pipeline
from rewards.metrics import MODALITY_METRICS
from synthetic.make import MakeConfig, make

TRAINING_SEED, HELD_OUT_SEED = 510_000, 1_001_000  # first scenes; no shipped weights were trained on them
EVALUATION_RUN_SEED = 1_000_000


@dataclass(frozen=True)
class Variant:
    """One trained model: ranking strategy of its pairs, seed, and settings that differ from the recipe."""

    strategy: str
    seed: int = 42
    settings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return "-".join([self.strategy, f"seed{self.seed}", *(part.lstrip("-") for part in self.settings)])


# The variants of the paper's ablation; the method itself with three seeds.
VARIANTS = (
    Variant("modality_micro"),
    Variant("modality_micro", seed=43),
    Variant("modality_micro", seed=44),
    Variant("modality_micro", settings=("--fm_weight", "0")),
    Variant("modality_micro", settings=("--margin_weighting", "false")),
    Variant("modality_macro"),
    Variant("agnostic"),
    Variant("inconsistent", settings=("--margin_weighting", "false")),  # some of its margins are negative
)


@dataclass(frozen=True, kw_only=True)
class GainsConfig:
    """Settings of `python -m benchmarks.dpo_gains`."""

    output_dir: Path = field(metadata={"help": "folder for candidates, pairs, models and figures"})
    model: str = field(default="tiny", metadata={"help": "starting model: it samples, is trained and is the baseline"})
    recipe: Path = field(
        default=Path("recipes/tiny/dpo_own_samples.yaml"), metadata={"help": "settings of every training"}
    )
    num_prompts: int = field(default=1400, metadata={"help": "captions for which pairs are made"})
    num_candidates: int = field(default=4, metadata={"help": "samples per caption"})
    pairs_per_prompt: int = field(default=2, metadata={"help": "largest number of pairs per caption"})
    adapter_scale: float = field(
        default=2.0, metadata={"help": "factor on the update of the trained adapter; see model.export"}
    )
    num_held_out: int = field(default=200, metadata={"help": "held-out captions, two samples each"})
    num_workers: int = field(default=2, metadata={"help": "processes that sample and score"})
    only: list[int] = field(
        default_factory=lambda: list(range(len(VARIANTS))),
        metadata={"help": f"numbers of variants: 0 to {len(VARIANTS) - 1}"},
    )

    def pool(self) -> list[str]:
        """Return the command-line arguments that sampling and scoring share."""
        return ["--rewards", "verifiable", "--num_actors", str(self.num_workers), "--include_ground_truth", "false"]


def main(argv: Sequence[str] | None = None) -> int:
    config = parse_config(GainsConfig, argv)
    sample_pool(config)
    baseline = evaluate(config, config.model, config.output_dir / "evaluation" / "before")
    rows = []
    for variant in (VARIANTS[number] for number in config.only):
        dataset = prepare_pairs(config, variant.strategy)
        model = train_variant(config, variant, dataset)
        tuned = evaluate(config, str(model), config.output_dir / "evaluation" / variant.name)
        rows.append((variant, compare(baseline, tuned)))
        print(table(rows), flush=True)
    return 0


def sample_pool(config: GainsConfig) -> None:
    """Sample and score the candidates, which all variants share."""
    prompts = _make_prompts(config.output_dir / "prompts", config.num_prompts, TRAINING_SEED, config.num_workers)
    _run(
        config,
        ["--stages", "sample", "score", "--num_candidates", str(config.num_candidates)],
        prompts,
        config.model,
        config.output_dir / "pool",
    )


def prepare_pairs(config: GainsConfig, strategy: str) -> Path:
    """Rank and encode the pairs of one strategy, and return the training dataset.

    `pool/pairs` contains the pairs of the last ranked strategy.
    """
    dataset = config.output_dir / "training" / strategy
    if not (dataset / "summary.json").is_file():
        pool = config.output_dir / "pool"
        ranking = ["--stages", "rank", "--strategy", strategy, "--ground_truth", "never"]
        ranking += ["--pairs_per_prompt", str(config.pairs_per_prompt), "--num_candidates", str(config.num_candidates)]
        _run(config, ranking, config.output_dir / "prompts" / "prompts.parquet", config.model, pool)
        print(f"{strategy}: {read_report(pool / 'pairs')['yield']:.0%} of the captions give a pair", flush=True)
        _check(prepare.main(["--pairs", str(pool / "pairs"), "--model", config.model, "--output", str(dataset)]))
    return dataset


def train_variant(config: GainsConfig, variant: Variant, dataset: Path) -> Path:
    """Train a variant and return the model to compare: the trained adapter, scaled and merged."""
    folder = config.output_dir / "models" / variant.name
    place = ["--model", config.model, "--dataset", str(dataset), "--output_dir", str(folder)]
    _check(train(["--config", str(config.recipe), *place, "--seed", str(variant.seed), *variant.settings]))
    scaled = config.output_dir / "scaled" / f"{variant.name}-times{config.adapter_scale:g}"
    if not (scaled / "README.md").is_file():  # export writes this file last
        shutil.rmtree(scaled, ignore_errors=True)
        scaling = ["--adapter_scale", str(config.adapter_scale)]
        _check(export(["--model", str(folder), "--output", str(scaled), *scaling]))
    return scaled


def evaluate(config: GainsConfig, model: str, folder: Path) -> Path:
    """Generate and score two samples of every held-out caption."""
    prompts = _make_prompts(config.output_dir / "held_out", config.num_held_out, HELD_OUT_SEED, config.num_workers)
    sampling = ["--stages", "sample", "score", "--num_candidates", "2", "--seed", str(EVALUATION_RUN_SEED)]
    _run(config, sampling, prompts, model, folder)
    return folder


def compare(baseline: Path, tuned: Path) -> dict[str, ComparisonRow]:
    """Compare two models, write comparison.json beside the tuned model's samples, and return the rows by name."""
    [comparison] = compare_all([read_pairs(baseline, tuned)], num_bootstrap=10_000, seed=0)
    atomic_write_text(tuned / "comparison" / "comparison.json", comparison_json([comparison], {}))
    return {row.name: row for row in comparison.rows}


def table(rows: Sequence[tuple[Variant, dict[str, ComparisonRow]]]) -> str:
    """Return the variants as a Markdown table: change of each figure with its 95 % interval."""
    shown = ["desync", *MODALITY_METRICS, "overall"]
    lines = ["| variant | " + " | ".join([*shown, "win rate"]) + " |", "|" + "---|" * (len(shown) + 2)]
    for variant, figures in rows:
        cells = [_change(figures[name]) for name in shown]
        cells[0] += f", {figures['desync'].difference / figures['desync'].baseline_mean:+.0%}"
        lines.append(f"| {variant.name} | {' | '.join(cells)} | {figures['overall'].win_rate:.1%} |")
    return "\n".join(lines)


def _change(row: ComparisonRow) -> str:
    return f"{row.difference:+.3f} ({row.difference_low:+.3f} .. {row.difference_high:+.3f})"


def _make_prompts(folder: Path, count: int, first_seed: int, num_workers: int) -> Path:
    make(MakeConfig(output=folder, num_clips=count, first_seed=first_seed, num_workers=num_workers))
    return folder / "prompts.parquet"


def _run(config: GainsConfig, arguments: list[str], prompts: Path, model: str, folder: Path) -> None:
    place = ["--prompts", str(prompts), "--model", model, "--output_dir", str(folder)]
    _check(run_pipeline(parse_config(RunConfig, [*arguments, *config.pool(), *place])))


def _check(status: int) -> None:
    if status:
        raise SystemExit(status)


if __name__ == "__main__":
    sys.exit(main())
