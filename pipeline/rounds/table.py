"""Figures of a round, and the text table of all rounds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from core.prompts import read_prompts
from core.text_table import table_lines
from pipeline.rank.pairs_folder import read_pairs, read_report
from pipeline.rounds.config import RoundsConfig
from rewards.metrics import METRIC_COLUMNS, MODALITY_METRICS

TRAINED = ("video", "audio")  # modalities of the loss
LAST_LINES = 5  # lines of the training log that are averaged
NUM_BOOTSTRAP = 2000


@dataclass(frozen=True)
class RoundFigures:
    """Figures of a finished round.

    Attributes:
        training: figures of the objective by the heading of their column, such as the share of prompts that gave a
            pair, the mean margin per modality, or the distance to the reference.
        held_out: prompts table of the comparison with the first model.
        comparison: a row of `evaluation.compare` per metric, modality and overall.
    """

    number: int
    num_prompts: int
    training: dict[str, float | None]
    seconds: float
    held_out: str | None
    comparison: list[dict[str, Any]]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RoundFigures:
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure(config: RoundsConfig, number: int, seconds: float) -> RoundFigures:
    """Compute the figures of a round whose stages are finished; `seconds` is the time of this call."""
    num_prompts, training = (_nft_figures if config.objective == "nft" else _dpo_figures)(config, number)
    return RoundFigures(
        number=number,
        num_prompts=num_prompts,
        training=training,
        seconds=seconds,
        held_out=None if config.held_out is None else str(config.held_out.resolve()),
        comparison=_comparison(config, number),
    )


def rounds_table(rounds: Sequence[RoundFigures]) -> str:
    """Format a table of the rounds and, with held-out prompts, a table of metrics by rounds."""
    lines = [["round", "prompts", *rounds[0].training, "seconds"]]
    for one in rounds:
        figures = [_number(value) for value in one.training.values()]
        lines.append([str(one.number), str(one.num_prompts), *figures, f"{one.seconds:.0f}"])
    text = "\n".join(table_lines(lines, "r"))
    compared = [one for one in rounds if one.comparison]
    return f"{text}\n\n{_comparison_table(compared)}" if compared else text


def _comparison_table(rounds: Sequence[RoundFigures]) -> str:
    lines = [["held-out", "before", *(f"round {one.number}" for one in rounds)]]
    for place, row in enumerate(rounds[0].comparison):
        cells = [_change(one.comparison[place]) for one in rounds]
        # Modality scores are standardised over the two compared models, so only their change has a meaning.
        before = _number(row["baseline_mean"]) if row["kind"] == "metric" else ""
        name = row["name"] if row["higher_is_better"] else f"{row['name']} (lower is better)"
        lines.append([name, before, *cells])
    note = "after a round: mean, change against the model before the first one [95 % interval], share of wins"
    return "\n".join([*table_lines(lines), note])


def _change(row: dict[str, Any]) -> str:
    if row["difference"] is None:
        return "-"
    interval = f"[{_number(row['difference_low'], '+')}, {_number(row['difference_high'], '+')}]"
    wins = "-" if row["win_rate"] is None else f"{row['win_rate']:.0%}"
    mean = f"{_number(row['candidate_mean'])} " if row["kind"] == "metric" else ""
    return f"{mean}{_number(row['difference'], '+')} {interval} {wins}"


def _dpo_figures(config: RoundsConfig, number: int) -> tuple[int, dict[str, float | None]]:
    """Return the number of prompts, and pairs, yield, ranking margins and accuracies of the last log lines."""
    folder = config.folder(number) / "preferences" / "pairs"
    report, pairs = read_report(folder), read_pairs(folder)
    margins = {f"margin {name}": _mean(pairs[f"margin_{name}"].dropna().tolist()) for name in MODALITY_METRICS}
    accuracies = {f"accuracy {name}": _logged(config, number, f"rewards/accuracies/{name}") for name in TRAINED}
    return report["num_prompts"], {"pairs": len(pairs), "yield": report["yield"], **margins, **accuracies}


def _nft_figures(config: RoundsConfig, number: int) -> tuple[int, dict[str, float | None]]:
    """Return the number of prompts, and candidates, failed scores, and the policy's distance to the old one."""
    import pandas as pd  # imported late: --help needs no pandas

    folder = config.folder(number)
    scores = pd.read_parquet(folder / "preferences" / "scores" / "scores.parquet")
    metrics = scores[[name for name in METRIC_COLUMNS if name in scores and scores[name].notna().any()]]
    failed = float(metrics.isna().any(axis=1).sum())
    distances = {f"distance {name}": _logged(config, number, f"distance/old/{name}") for name in TRAINED}
    num_prompts = len(read_prompts(folder / "prompts.parquet"))
    return num_prompts, {"candidates": len(scores), "failed scores": failed, **distances}


def _logged(config: RoundsConfig, number: int, name: str) -> float | None:
    from model.train.callbacks import read_log  # imported late: imports transformers

    lines = [line for line in read_log(config.folder(number) / "model") if "loss" in line][-LAST_LINES:]
    return _mean([line[name] for line in lines if name in line])


def _comparison(config: RoundsConfig, number: int) -> list[dict[str, Any]]:
    if config.held_out is None:
        return []
    from evaluation.compare.figures import compare_models  # late: the evaluation is above the pipeline
    from evaluation.compare.tables import read_pairs as read_scores

    scores = read_scores(config.folder(0) / "evaluation", config.folder(number) / "evaluation")
    rows = compare_models(scores, num_bootstrap=NUM_BOOTSTRAP, seed=0)
    return [json.loads(json.dumps(asdict(row), default=float)) for row in rows]


def _mean(values: Sequence[float]) -> float | None:
    return float(sum(values) / len(values)) if values else None


def _number(value: float | None, sign: str = "") -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:{sign}.3g}" if abs(value) < 1e-3 else f"{value:{sign}.3f}"
