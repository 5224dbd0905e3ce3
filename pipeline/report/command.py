"""The pairs dataset as one static HTML page: winner and loser side by side, every metric, filter, sort, sound, labels.

The page holds no link to the outside: script, style and data are in it, and clips are read from the run's own folder,
so `output_dir` can be moved, zipped or served as it is. Table columns become one JSON block that the page's script
reads, draws one page of pairs at a time from, and puts on the page as text, never as markup.

The page also collects preferences of people, without telling them the winner (key `l`), as a CSV of pair_id, modality,
winner (a, b or tie), a, b (candidate ids), annotator and time.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from core.cli import StageSummary, atomic_write_text, echo, package_versions, parse_config, save_config
from pipeline.report.data import SIDES, clip_paths, page_data, read_pairs
from pipeline.report.page import render, template_version
from pipeline.report.strategies import choices_of_others

MAX_THUMBNAIL_SIZE = 1024
ABOUT = """Write the pairs of a run as a page to look at: OUTPUT_DIR/report/index.html opens in any browser, without a
server. Filter and sort by metrics and margins, play winner and loser in step, or press l to label the pairs yourself,
blind to which is the winner, and export a CSV that `python -m pipeline.convert --labels` reads. ? shows all keys."""


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Settings of `python -m pipeline.report`."""

    output_dir: Path = field(metadata={"help": "Folder of the run: pairs/ is read, report/index.html is written."})
    title: str = field(default="Preference pairs", metadata={"help": "Heading of the page."})
    thumbnail_size: int = field(
        default=192, metadata={"help": "Longer side, in pixels, of the small pictures of the clips; 0 for none."}
    )
    dry_run: bool = field(default=False, metadata={"help": "Check the pairs and say what would be written."})

    def __post_init__(self) -> None:
        if not 0 <= self.thumbnail_size <= MAX_THUMBNAIL_SIZE:
            raise ValueError(
                f"thumbnail_size is {self.thumbnail_size}, but must be from 1 to {MAX_THUMBNAIL_SIZE} pixels, or 0 for "
                "no thumbnails."
            )


def build_report(output_dir: Path, *, title: str = "Preference pairs", thumbnail_size: int = 192) -> Path:
    """Write `output_dir/report/index.html` from `output_dir/pairs` (and `pairs/ranking.json` if it exists).

    Thumbnails of the clips are written beside the page. Their longer side has at most `thumbnail_size` pixels; 0 writes
    none. The same pairs and clips give the same bytes. Returns the page's path.

    Raises:
        ValueError: the pairs folder is missing or lacks columns, or a path in it points outside `output_dir`.
    """
    output_dir = Path(output_dir)
    _write_page(read_pairs(output_dir / "pairs"), output_dir, title, thumbnail_size)
    return output_dir / "report" / "index.html"


def run_report(config: ReportConfig) -> StageSummary:
    """Build the report as a stage and write summary.json beside it. A finished page of the same ranking is kept."""
    started, folder = time.perf_counter(), config.output_dir / "report"
    settings = {
        "title": config.title,
        "thumbnail_size": config.thumbnail_size,
        "inputs": _ranking(config.output_dir).get("inputs"),
        "template": template_version(),
        "clips_without_thumbnail": 0,  # a page that lacked some is built again: the clips may exist by now
    }
    summary_path = folder / "summary.json"
    earlier = json.loads(summary_path.read_text(encoding="utf-8")) if summary_path.is_file() else {}
    finished = bool(settings["inputs"]) and earlier.get("settings") == settings and (folder / "index.html").is_file()
    if finished:
        num_pairs = int(earlier["wanted"])
    else:
        pairs = read_pairs(config.output_dir / "pairs")
        num_without = _write_page(pairs, config.output_dir, config.title, config.thumbnail_size)
        settings["clips_without_thumbnail"] = num_without
        save_config(config, folder / "config.yaml")
        num_pairs = len(pairs)
        if num_without:
            echo(f"report: clips without a thumbnail, because they are missing or cannot be decoded: {num_without}")
    summary = StageSummary(
        stage="report",
        wanted=num_pairs,
        done=num_pairs,
        skipped=num_pairs if finished else 0,
        failed=0,
        seconds=time.perf_counter() - started,
        settings=settings,
        versions=package_versions("avdpo", "jinja2"),
    )
    summary.write(folder)
    echo(summary.line())
    return summary


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status: 0, or 2 if the input is wrong."""
    config = parse_config(ReportConfig, argv, about=ABOUT)
    try:
        if config.dry_run:
            num_pairs = len(read_pairs(config.output_dir / "pairs"))
            echo(f"report: {num_pairs} pairs (dry run: nothing written); output {config.output_dir / 'report'}")
        else:
            run_report(config)
            echo(f"report: {config.output_dir / 'report' / 'index.html'}")
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def _write_page(pairs: pa.Table, output_dir: Path, title: str, thumbnail_size: int) -> int:
    """Write the page and its thumbnails. Returns how many clips should have a thumbnail but have none."""
    folder = output_dir / "report"
    paths = clip_paths(pairs, output_dir)
    clips = {path for side in SIDES for path in paths[f"{side}_video"] if path is not None}
    thumbnail_folder, thumbnails = f"thumbnails-{thumbnail_size}", set[str]()
    if thumbnail_size:
        from pipeline.report.thumbnails import make_thumbnails  # imported late: a finished report needs no decoder

        thumbnails = make_thumbnails(clips, output_dir, folder / thumbnail_folder, thumbnail_size)
    ranking = _ranking(output_dir)
    data = page_data(
        pairs,
        output_dir,
        paths,
        thumbnails=thumbnails,
        thumbnail_folder=thumbnail_folder,
        choices=_choices_of_others(output_dir, ranking),
    )
    plots = [f"../pairs/plots/{path.name}" for path in sorted((output_dir / "pairs" / "plots").glob("*.png"))]
    atomic_write_text(folder / "index.html", render(pairs, ranking, data, title=title, plots=plots))
    return len(clips - thumbnails) if thumbnail_size else 0


def _choices_of_others(output_dir: Path, ranking: dict[str, Any]) -> dict[str, set[str]]:
    try:
        return choices_of_others(output_dir, ranking)
    except ValueError as error:  # the page can show the pairs without this comparison
        echo(f"report: other strategies are not compared: {error}")
        return {}


def _ranking(output_dir: Path) -> dict[str, Any]:
    """Return `pairs/ranking.json` (statistics, yield, inputs); {} for pairs that another tool made."""
    path = output_dir / "pairs" / "ranking.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


if __name__ == "__main__":
    sys.exit(main())
