"""Time to open and filter the report of many pairs in a browser: `python -m benchmarks.report --num_pairs 25000`.

Pairs with random scores, and prompts and paths of usual lengths, are written and shown in headless Chromium. Times in
the browser run from the user's action until the page is drawn again. Thumbnails are timed on copies of one 240p clip.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset

from core.ids import stem
from media import AVClip, write_clip
from pipeline.report.command import build_report
from rewards.metrics import METRIC_COLUMNS, MODALITY_METRICS

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
WORDS = (
    "a",
    "small",
    "red",
    "ball",
    "bounces",
    "twice",
    "and",
    "rings",
    "like",
    "an",
    "old",
    "bell",
    "near",
    "the",
    "wall",
)
# Name, form control, new value, original value.
ACTIONS = (
    ("filter: two words", "search", "red bell", ""),
    ("filter: margin at least 1", "min-margin-video", "1", ""),
    ("filter: ground truth lost", "ground-truth", "lost", "any"),
    ("sort: by a metric", "sort", "metric:desync", "margin"),
    ("sort: by id", "sort", "prompt_id", "margin"),
)
CLICKS = (("next page", "next-page"), ("gallery", "toggle-view"), ("labelling", "start-labelling"))
REPEATS = 3
MEMORY = "memory of the page's script"
# The page is drawn again when the task runs that the animation frame's callback queued.
ACT = """([id, value]) => new Promise((done) => {
  const start = performance.now();
  document.getElementById(id).value = value;
  document.getElementById(id).dispatchEvent(new Event("input", { bubbles: true }));
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
})"""
ADD_CONDITION = """() => {
  document.getElementById("add-condition").click();
  document.querySelector(".condition select").value = "metric:visual_quality";
}"""
CONDITION = """(least) => new Promise((done) => {
  const start = performance.now();
  document.querySelector(".condition .min").value = least;
  document.querySelector(".condition .min").dispatchEvent(new Event("input", { bubbles: true }));
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
})"""
CLICK = """(id) => new Promise((done) => {
  const start = performance.now();
  document.getElementById(id).click();
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
})"""
OPENED = """() => Math.max(
  performance.getEntriesByType("navigation")[0].loadEventEnd,
  performance.getEntriesByName("first-contentful-paint")[0].startTime,
)"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_pairs", type=int, default=25_000)
    parser.add_argument("--num_clips", type=int, default=200, help="number of clips for thumbnails")
    args = parser.parse_args()
    if find_chromium() is None:
        sys.exit(
            f"None of {', '.join(BROWSERS)} is on PATH, but a browser is needed: install one (Debian: apt-get install "
            "chromium)."
        )
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        write_pairs(run, args.num_pairs)
        page, seconds = timed(lambda: build_report(run))
        print("| what | figure |\n|---|---|")
        print(f"| pairs | {args.num_pairs:,} |")
        print(f"| build the page | {seconds:.1f} s |")
        print(f"| size of the page | {page.stat().st_size / 2**20:.1f} MiB |")
        with running_chromium() as browser:
            figures = measure(browser, page)
        for name, values in figures.items():
            unit = "MiB" if name == MEMORY else "ms"
            print(f"| {name} | {describe(values)} {unit} |")
        print(f"| thumbnails of 240p clips, {os.cpu_count()} cores | {thumbnails_per_second(args.num_clips):.0f}/s |")


def write_pairs(run: Path, num_pairs: int) -> None:
    """Write `run/pairs` as `pipeline.rank` does; the clips in the table do not exist."""
    rng = np.random.default_rng(0)
    ids = [f"prompt-{number:06d}" for number in rng.permutation(num_pairs)]
    prompts = [" ".join(words) for words in rng.choice(WORDS, (num_pairs, 24))]
    columns: dict[str, Any] = {"prompt_id": ids, "prompt": prompts}
    folders = [f"../candidates/media/{stem(prompt_id)}" for prompt_id in ids]
    for side, names in (("chosen", ("gt", "0", "1")), ("rejected", ("2", "gt", "3"))):
        kinds = [names[number] for number in rng.integers(3, size=num_pairs)]
        columns[f"{side}_candidate_id"] = [f"{prompt_id}/{kind}" for prompt_id, kind in zip(ids, kinds, strict=True)]
        for column, suffix in (("video_path", "mp4"), ("audio_path", "wav")):
            columns[f"{side}_{column}"] = [f"{folders[row]}/{kind}.{suffix}" for row, kind in enumerate(kinds)]
        columns[f"{side}_is_ground_truth"] = [kind == "gt" for kind in kinds]
        columns[f"{side}_seed"] = rng.integers(2**62, 2**63 - 1, num_pairs)
        for name in (*METRIC_COLUMNS, *(f"{modality}_score" for modality in MODALITY_METRICS)):
            columns[f"{side}_{name}"] = rng.random(num_pairs)
    for name in (*(f"margin_{modality}" for modality in MODALITY_METRICS), "margin"):
        columns[name] = rng.gamma(2.0, 0.5, num_pairs)
    frame = pd.DataFrame(columns).assign(num_frames=65, height=240, width=432, fps=16.0, sample_rate=16000)
    Dataset.from_pandas(frame, preserve_index=False).save_to_disk(str(run / "pairs"), num_shards=1)


def find_chromium() -> str | None:
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def describe(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.0f}"
    return f"{np.median(values):.0f} (median; {min(values):.0f} to {max(values):.0f})"


def measure(browser: Any, page_path: Path) -> dict[str, list[float]]:
    """Return the times of opening the page and of every action in milliseconds, and MEMORY in MiB.

    Args:
        browser: browser of playwright's synchronous interface.
        page_path: path of the report.
    """
    first, milliseconds = _open(browser, page_path)
    first.close()
    page, again = _open(browser, page_path)
    figures = {"open": [milliseconds, again]}
    for name, control, value, former in ACTIONS:
        figures[name] = []
        for _ in range(REPEATS):
            figures[name].append(page.evaluate(ACT, [control, value]))
            page.evaluate(ACT, [control, former])
    page.evaluate(ADD_CONDITION)
    figures["filter: winner ahead in a metric"] = [page.evaluate(CONDITION, least) for least in (0.1, 0.2, 0.3)]
    for name, button in CLICKS:
        figures[name] = [page.evaluate(CLICK, button)]
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    figures[MEMORY] = [session.send("Runtime.getHeapUsage")["usedSize"] / 2**20]
    return figures


@contextmanager
def running_chromium() -> Iterator[Any]:
    """Run the machine's Chromium headless and provide it as a browser of playwright's synchronous interface."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=list(BROWSER_FLAGS))
        yield browser
        browser.close()


def _open(browser: Any, page_path: Path) -> tuple[Any, float]:
    """Open the report, and return the page and the milliseconds until its first pairs were painted."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(page_path.as_uri())
    page.locator("#items > *").first.wait_for()
    page.wait_for_function("() => performance.getEntriesByName('first-contentful-paint').length")
    return page, page.evaluate(OPENED)


def thumbnails_per_second(num_clips: int) -> float:
    from pipeline.report.thumbnails import make_thumbnails

    noise = np.random.default_rng(0).integers(0, 256, (65, 15, 27, 3), dtype=np.uint8)
    clip = AVClip(noise.repeat(16, axis=1).repeat(16, axis=2), 16.0, np.zeros((1, 65_000), dtype=np.float32), 16_000)
    with tempfile.TemporaryDirectory() as folder:
        names = [f"{number}.mp4" for number in range(num_clips)]
        write_clip(clip, Path(folder) / names[0])
        for name in names[1:]:
            shutil.copyfile(Path(folder) / names[0], Path(folder) / name)
        _, seconds = timed(lambda: make_thumbnails(names, Path(folder), Path(folder) / "thumbnails", 192))
    return num_clips / seconds


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return work(), time.perf_counter() - start


if __name__ == "__main__":
    main()
