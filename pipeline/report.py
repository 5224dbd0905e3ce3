"""The pairs dataset as one static HTML page: winner and loser side by side, every metric, filter, sort and sound.

The page holds no link to the outside: script, style and data are in it, and clips are read from the run's own folder,
so `output_dir` can be moved, zipped or served as it is. Table columns become one JSON block that the page's script
reads, draws 20 cards at a time from, and puts on the page as text, never as markup.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import pyarrow as pa
import pyarrow.parquet as pq
from markupsafe import Markup

from media.cli import StageSummary, atomic_write_text, echo, package_versions, parse_config, save_config
from pipeline.schema import PAIRS, validate
from rewards.metrics import HIGHER_IS_BETTER, METRIC_COLUMNS, MODALITY_METRICS

TEMPLATE_DIR = Path(__file__).parent / "report_template"
SCRIPTS = ("table.js", "player.js", "card.js", "page.js")  # in this order, as one script
SIDES = ("chosen", "rejected")
LABELS = {
    "ib_tv": "Text-video match",
    "ib_ta": "Text-audio match",
    "ib_av": "Audio-video match",
    "desync": "Desync (s)",
    "audio_video": "Audio-video",
    **{f"{modality}_score": "Score" for modality in MODALITY_METRICS},
}

Columns = dict[str, list[Any]]


@dataclass(frozen=True)
class Metric:
    """One pair of bars on a card. `low` and `high` span both sides of the whole dataset."""

    name: str
    label: str
    modality: str | None  # None: informative only, takes no part in the ranking
    higher_is_better: bool
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Settings of `python -m pipeline.report`."""

    output_dir: Path = field(metadata={"help": "Folder of the run: pairs/ is read, report/index.html is written."})
    title: str = field(default="Preference pairs", metadata={"help": "Heading of the page."})
    dry_run: bool = field(default=False, metadata={"help": "Check the pairs and say what would be written."})


def build_report(output_dir: Path, *, title: str = "Preference pairs") -> Path:
    """Write `output_dir/report/index.html` from `output_dir/pairs` (and `pairs/ranking.json`, where there is one).

    The same pairs give the same bytes. Returns the page's path.

    Raises:
        ValueError: the pairs folder is missing or lacks columns, or a path in it leads out of `output_dir`.
    """
    output_dir = Path(output_dir)
    return _write_page(_read_pairs(output_dir / "pairs"), output_dir, title)


def run_report(config: ReportConfig) -> StageSummary:
    """Build the report as a stage, with summary.json beside it; a page of this very ranking is left alone."""
    started, folder = time.perf_counter(), config.output_dir / "report"
    settings = {"title": config.title, "inputs": _ranking(config.output_dir).get("inputs")}
    summary_path = folder / "summary.json"
    earlier = json.loads(summary_path.read_text(encoding="utf-8")) if summary_path.is_file() else {}
    finished = bool(settings["inputs"]) and earlier.get("settings") == settings and (folder / "index.html").is_file()
    if finished:
        num_pairs = int(earlier["wanted"])
    else:
        pairs = _read_pairs(config.output_dir / "pairs")
        _write_page(pairs, config.output_dir, config.title)
        save_config(config, folder / "config.yaml")
        num_pairs = len(pairs)
    summary = StageSummary(
        stage="report",
        wanted=num_pairs,
        done=num_pairs,
        skipped=num_pairs if finished else 0,
        failed=0,
        seconds=time.perf_counter() - started,
        settings=settings,
        versions=package_versions("avdpo", "datasets", "jinja2"),
    )
    summary.write(folder)
    echo(summary.line())
    return summary


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status, 2 on a mistake in the input."""
    config = parse_config(ReportConfig, argv)
    try:
        if config.dry_run:
            num_pairs = len(_read_pairs(config.output_dir / "pairs"))
            echo(f"report: {num_pairs} pairs (dry run: nothing written); output {config.output_dir / 'report'}")
        else:
            run_report(config)
            echo(f"report: {config.output_dir / 'report' / 'index.html'}")
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def _read_pairs(pairs_dir: Path) -> pa.Table:
    from datasets import load_from_disk  # late: takes a second to import

    if not (pairs_dir / "dataset_info.json").is_file():
        raise ValueError(
            f"{pairs_dir} holds no pairs dataset, so there is nothing to show. Run `python -m pipeline.rank`."
        )
    table: pa.Table = load_from_disk(str(pairs_dir)).data.table
    sided = ("candidate_id", "video_path", "is_ground_truth", *(f"{modality}_score" for modality in MODALITY_METRICS))
    wanted = ["prompt_id", "prompt", "margin", *(f"margin_{modality}" for modality in MODALITY_METRICS)]
    wanted += [f"{side}_{name}" for side in SIDES for name in sided]
    missing = [name for name in wanted if name not in table.column_names]
    if missing:
        raise ValueError(
            f"{pairs_dir} lacks the columns {', '.join(missing)}, which the report shows. "
            "Make the pairs with `python -m pipeline.rank`, or add these columns."
        )
    return validate(table, PAIRS, pairs_dir)


def _write_page(pairs: pa.Table, output_dir: Path, title: str) -> Path:
    page = output_dir / "report" / "index.html"
    atomic_write_text(page, _render(pairs, _ranking(output_dir), output_dir, title))
    return page


def _ranking(output_dir: Path) -> dict[str, Any]:
    """Statistics and yield of the ranking, and what it was made from; pairs of another origin have none."""
    path = output_dir / "pairs" / "ranking.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _render(pairs: pa.Table, ranking: dict[str, Any], output_dir: Path, title: str) -> str:
    columns: Columns = pairs.to_pydict()
    directions = _directions(output_dir / "scores" / "scores.parquet")
    modalities = [
        {"name": name, "label": _label(name), "score": asdict(_metric(columns, f"{name}_score", name, True))}
        for name in MODALITY_METRICS
    ]
    metrics = [asdict(metric) for metric in _metrics(pairs.schema, columns, directions)]
    data = {
        "modalities": modalities,
        "metrics": metrics,
        "columns": _page_columns(columns, [metric["name"] for metric in metrics], output_dir),
    }
    script = "\n".join((TEMPLATE_DIR / name).read_text(encoding="utf-8") for name in SCRIPTS)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE_DIR),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("index.html.j2").render(
        title=title,
        subtitle=_subtitle(ranking),
        tiles=_tiles(columns, ranking),
        losses=_losses(ranking),
        num_pairs=len(columns["prompt_id"]),
        modalities=modalities,
        metrics=metrics,
        style=Markup((TEMPLATE_DIR / "style.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=Markup(_json_for_html(data)),
    )


def _json_for_html(value: Any) -> str:
    """JSON that can stand inside a script element: no text in it can end the element or open a comment."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _directions(scores_path: Path) -> dict[str, bool]:
    """Whether higher is better, per metric: for third-party rewards the scores table knows, and is the only one to."""
    scores = pq.read_schema(scores_path) if scores_path.is_file() else pa.schema([])
    stated = {item.name: item.metadata[b"higher_is_better"] for item in scores if item.metadata}
    return HIGHER_IS_BETTER | {name: value == b"true" for name, value in stated.items()}


def _metrics(schema: pa.Schema, columns: Columns, directions: dict[str, bool]) -> list[Metric]:
    """Every metric scored on both sides: the ranking's by modality, other known ones, third-party ones."""
    modality_of = {name: modality for modality, names in MODALITY_METRICS.items() for name in names}
    floats = {column.name for column in schema if pa.types.is_floating(column.type)}
    chosen, rejected = ({name.removeprefix(f"{side}_") for name in floats if name.startswith(side)} for side in SIDES)
    scored = (chosen & rejected) - {f"{modality}_score" for modality in MODALITY_METRICS}
    names = dict.fromkeys((*modality_of, *METRIC_COLUMNS, *sorted(scored)))  # in this order, each once
    metrics = [
        _metric(columns, name, modality_of.get(name), directions.get(name, True)) for name in names if name in scored
    ]
    return [metric for metric in metrics if metric.low is not None]


def _metric(columns: Columns, name: str, modality: str | None, higher_is_better: bool) -> Metric:
    values = [value for side in SIDES for value in map(_number, columns[f"{side}_{name}"]) if value is not None]
    return Metric(
        name=name,
        label=_label(name),
        modality=modality,
        higher_is_better=higher_is_better,
        low=min(values, default=None),
        high=max(values, default=None),
    )


def _label(name: str) -> str:
    return LABELS.get(name, name.replace("_", " ").capitalize())


def _number(value: float | None) -> float | None:
    """Nine significant digits tell any two float32 scores apart, and take half the room."""
    return float(f"{value:.9g}") if value is not None else None


def _page_columns(columns: Columns, metric_names: list[str], output_dir: Path) -> Columns:
    """The columns the page's script reads; seeds are text, because JavaScript rounds integers above 2^53."""
    page: Columns = {"prompt_id": columns["prompt_id"], "prompt": columns["prompt"]}
    page |= {name: columns[name] for name in ("width", "height") if "width" in columns and "height" in columns}
    margins = ["margin", *(f"margin_{modality}" for modality in MODALITY_METRICS)]
    scores = [f"{side}_{modality}_score" for side in SIDES for modality in MODALITY_METRICS]
    metrics = [f"{side}_{name}" for side in SIDES for name in metric_names]
    page |= {name: [_number(value) for value in columns[name]] for name in (*margins, *scores, *metrics)}
    blank = [None] * len(page["prompt_id"])
    for side in SIDES:
        page[f"{side}_is_ground_truth"] = columns[f"{side}_is_ground_truth"]
        page[f"{side}_source"] = list(map(_source, columns["prompt_id"], columns[f"{side}_candidate_id"]))
        seeds = columns.get(f"{side}_seed", blank)
        page[f"{side}_seed"] = [None if seed is None else str(seed) for seed in seeds]
        for kind in ("video", "audio"):
            paths = columns.get(f"{side}_{kind}_path", blank)
            page[f"{side}_{kind}_url"] = [
                None if path is None else _url(path, output_dir, f"{side}_{kind}_path", row)
                for row, path in enumerate(paths)
            ]
    return page


def _source(prompt_id: str, candidate_id: str) -> str:
    """Such as `candidate 2`; ranking joins two ids with "+" where picture and sound are of different candidates."""
    indices = candidate_id.removeprefix(f"{prompt_id}/").split(f"+{prompt_id}/")
    names = ["ground truth" if index == "gt" else f"candidate {index}" for index in indices]
    return names[0] if len(names) == 1 else f"picture of {names[0]}, sound (wav) of {names[1]}"


def _url(path: str, output_dir: Path, column: str, row: int) -> str:
    """Turn a path relative to `output_dir/pairs` into a URL relative to `output_dir/report`."""
    inside = os.path.normpath(os.path.join("pairs", path))
    if os.path.isabs(path) or inside.split(os.sep)[0] in ("..", "."):
        raise ValueError(
            f"{output_dir / 'pairs'}, row {row}, {column}: {path!r} leads out of {output_dir}, so the report would not "
            "stand on its own. Make this path relative to the pairs folder and keep the clip inside the run's folder."
        )
    return quote("../" + inside.replace(os.sep, "/"))


def _subtitle(ranking: dict[str, Any]) -> str:
    return "Ranked by {strategy}, ground truth: {ground_truth}".format(**ranking) if "strategy" in ranking else ""


def _tiles(columns: Columns, ranking: dict[str, Any]) -> list[dict[str, str]]:
    num_pairs = len(columns["prompt_id"])
    tiles = [_tile("Pairs", f"{num_pairs:,}")]
    if "num_prompts" in ranking:
        num_prompts, num_giving = ranking["num_prompts"], len(set(columns["prompt_id"]))
        tiles.insert(0, _tile("Prompts", f"{num_prompts:,}"))
        tiles.append(_tile("Yield", _percent(num_giving, num_prompts), "of prompts gave a pair"))
    won, lost = (sum(columns[f"{side}_is_ground_truth"]) for side in SIDES)
    note = f"{won:,} of {won + lost:,} pairs with ground truth" if won + lost else "no pair with ground truth"
    tiles.append(_tile("Ground truth wins", _percent(won, won + lost), note))
    rates = ranking.get("ground_truth_wins", {}).get("win_rate")
    if rates:
        by_modality = ", ".join(f"{_label(name).lower()} {rates[name]:.0%}" for name in MODALITY_METRICS)
        tiles.append(
            _tile("Ground truth beats a candidate", f"{rates['all']:.0%}", f"in every modality ({by_modality})")
        )
    return tiles


def _tile(label: str, value: str, note: str = "") -> dict[str, str]:
    return {"label": label, "value": value, "note": note}


def _losses(ranking: dict[str, Any]) -> list[dict[str, Any]]:
    """Reasons why prompts gave no pair, the commonest first."""
    attrition: dict[str, int] = ranking.get("attrition", {})
    total = sum(attrition.values())
    return [
        {"reason": reason, "count": count, "percent": 100 * count / total}
        for reason, count in sorted(attrition.items(), key=lambda item: -item[1])
        if count
    ]


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "n/a"


if __name__ == "__main__":
    sys.exit(main())
