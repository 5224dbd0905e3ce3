"""The report's page as a file: its content, refused input, and escaping of all text from tables."""

from __future__ import annotations

import base64
import json
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.report.command import build_report, main
from rewards.metrics import METRIC_COLUMNS, MODALITY_METRICS
from tests.pipeline.report.report_helpers import HOSTILE_TEXTS, SIDES, pairs_table, write_run

RANKING = {
    "strategy": "modality_micro",
    "ground_truth": "any",
    "num_prompts": 30,
    "ground_truth_wins": {"win_rate": {"video": 0.71, "audio": 0.6, "audio_video": 0.55, "all": 0.41}},
    "attrition": {"<b>no winner</b> in every modality": 7, "too few scores": 3, "never happened": 0},
}


class Page(HTMLParser):
    """Collects the page's tags, its visible text and the JSON block, as a browser's parser would split them."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.data = ""
        self._inside: tuple[str, str | None] = ("", None)
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = (tag, dict(attrs).get("id"))
        self.text += " "

    def handle_endtag(self, tag):
        self._inside = ("", None)

    def handle_data(self, data):
        if self._inside == ("script", "report-data"):
            self.data += data
        elif self._inside[0] not in ("script", "style"):
            self.text += data

    @property
    def words(self) -> str:
        return " ".join(self.text.split())

    @property
    def columns(self) -> dict[str, list]:
        data = json.loads(self.data)
        return data["columns"] | {name: numbers(encoded) for name, encoded in data["numbers"].items()}

    def url(self, name: str, row: int) -> str:
        """Return a URL as the script builds it: a file beside the winner's video is stored by its name only."""
        url, first = self.columns[f"{name}_url"][row], self.columns["chosen_video_url"][row]
        return url if url.startswith("../") else f"{first.rpartition('/')[0]}/{url}"


def numbers(encoded: str) -> list[float | None]:
    values = np.frombuffer(base64.b64decode(encoded), dtype="<f4")
    return [None if np.isnan(value) else float(value) for value in values]


def report(tmp_path: Path, pairs: pd.DataFrame, **options) -> Page:
    return Page(build_report(write_run(tmp_path, pairs, clips=False, **options)))


def test_header_states_counts_yield_reasons_and_ground_truth_wins(tmp_path):
    pairs = pairs_table(20)
    words = report(tmp_path, pairs, ranking=RANKING).words
    won, lost = pairs["chosen_is_ground_truth"].sum(), pairs["rejected_is_ground_truth"].sum()
    assert "Prompts 30" in words
    assert "Pairs 20" in words
    assert "Yield 67% of prompts gave a pair" in words
    assert f"{won / (won + lost):.0%} {won} of {won + lost} pairs with ground truth" in words
    assert "41% in every modality (video 71%, audio 60%, audio-video 55%)" in words
    assert "Ranked by modality_micro, ground truth: any" in words
    assert "<b>no winner</b> in every modality 7 too few scores 3" in words  # as text: the parser found no such tag
    assert "never happened" not in words


def test_missing_ranking_json_leaves_out_only_its_figures(tmp_path):
    words = report(tmp_path, pairs_table(3)).words
    assert "Pairs 3" in words
    assert "Yield" not in words
    assert "Why prompts gave no pair" not in words


def test_every_value_of_the_table_reaches_the_page(tmp_path):
    pairs = pairs_table(25)
    columns = report(tmp_path, pairs).columns
    assert columns["prompt"] == pairs["prompt"].tolist()
    for name in (f"{side}_{metric}" for side in SIDES for metric in METRIC_COLUMNS):
        assert columns[name] == pytest.approx(pairs[name].tolist(), rel=1e-6)
    for modality in MODALITY_METRICS:
        assert columns[f"margin_{modality}"] == pytest.approx(pairs[f"margin_{modality}"].tolist(), rel=1e-6)
    seeds = [None if pd.isna(seed) else str(seed) for seed in pairs["chosen_seed"]]
    assert columns["chosen_seed"] == seeds  # text: a JavaScript number would lose the last digits of 63-bit seeds


def test_hostile_text_adds_no_markup_and_survives_unchanged(tmp_path):
    plain = report(tmp_path / "plain", pairs_table(len(HOSTILE_TEXTS)))
    hostile = report(tmp_path / "hostile", pairs_table(len(HOSTILE_TEXTS), first_texts=HOSTILE_TEXTS))
    assert hostile.tags == plain.tags
    assert hostile.columns["prompt"] == list(HOSTILE_TEXTS)
    assert hostile.columns["prompt_id"] == list(HOSTILE_TEXTS)
    assert not set("<>&\u2028\u2029") & set(hostile.data)


def test_title_is_escaped(tmp_path):
    path = build_report(write_run(tmp_path, pairs_table(1), clips=False), title="<script>alert(1)</script> & co")
    assert "<script>alert(1)" not in path.read_text(encoding="utf-8")
    assert "<script>alert(1)</script> & co" in Page(path).text


def test_sources_are_relative_encoded_and_point_at_the_files(tmp_path):
    pairs = pairs_table(14)
    page = report(tmp_path, pairs)
    for name in (f"{side}_{kind}" for side in SIDES for kind in ("video", "audio")):
        for row, path in enumerate(pairs[f"{name}_path"]):
            url = page.url(name, row)
            assert url.isascii()
            assert not set('#? "') & set(url)
            assert (tmp_path / "report" / unquote(url)).resolve() == (tmp_path / "pairs" / path).resolve()


def test_clips_of_one_pair_may_be_in_different_folders(tmp_path):
    pairs = pairs_table(2)
    pairs["rejected_video_path"] = ["../candidates/elsewhere/0.mp4", None]
    pairs.loc[1, "chosen_video_path"] = None
    page = report(tmp_path, pairs)
    assert page.url("rejected_video", 0) == "../candidates/elsewhere/0.mp4"
    assert page.columns["rejected_video_url"][1] is None
    assert (tmp_path / "report" / unquote(page.url("rejected_audio", 1))).resolve() == (
        tmp_path / "pairs" / pairs["rejected_audio_path"][1]
    ).resolve()


@pytest.mark.parametrize("path", ["../../secret.mp4", "/etc/passwd", "../..", "..", "../candidates/../../x.mp4"])
def test_a_path_out_of_the_run_is_refused_by_row_and_column(tmp_path, path):
    pairs = pairs_table(3)
    pairs.loc[1, "rejected_video_path"] = path
    with pytest.raises(ValueError, match=r"row 1, rejected_video_path: .* leads out of"):
        report(tmp_path, pairs)


def test_a_path_that_looks_like_a_web_address_stays_a_file_name(tmp_path):
    pairs = pairs_table(1)
    pairs["chosen_video_path"] = "https://example.org/x.mp4"
    assert report(tmp_path, pairs).columns["chosen_video_url"] == ["../pairs/https%3A/example.org/x.mp4"]


def test_missing_scores_are_null_not_zero(tmp_path):
    pairs = pairs_table(4)
    pairs.loc[2, "chosen_desync"] = None
    pairs["chosen_text_alignment"] = None
    pairs["rejected_text_alignment"] = None
    page = report(tmp_path, pairs)
    assert page.columns["chosen_desync"][2] is None
    metrics = {metric["name"]: metric for metric in json.loads(page.data)["metrics"]}
    assert metrics["desync"]["low"] == pytest.approx(
        min(pairs["chosen_desync"].min(), pairs["rejected_desync"].min()), rel=1e-6
    )
    assert not metrics["desync"]["higher_is_better"]
    assert "text_alignment" not in metrics  # nobody scored it: no empty row on every card


def test_metrics_of_third_party_rewards_are_shown(tmp_path):
    pairs = pairs_table(3)
    for name in ("beauty", "noise"):
        pairs[f"chosen_{name}"], pairs[f"rejected_{name}"] = [0.5, 0.25, 1.0], [0.1, 0.2, 0.3]
    scores = pa.schema([pa.field("noise", pa.float64(), metadata={"higher_is_better": "false"})])
    (tmp_path / "scores").mkdir()
    pq.write_table(scores.empty_table(), tmp_path / "scores" / "scores.parquet")
    metrics = {metric["name"]: metric for metric in json.loads(report(tmp_path, pairs).data)["metrics"]}
    assert set(metrics) == {*METRIC_COLUMNS, "beauty", "noise"}  # and no seed, margin or score passes for a metric
    assert metrics["beauty"]["higher_is_better"]
    assert not metrics["noise"]["higher_is_better"]


def test_a_run_without_pairs_still_shows_the_reasons(tmp_path):
    pairs = pairs_table(3).iloc[:0]
    words = report(tmp_path, pairs, ranking=RANKING).words
    assert "Pairs 0" in words
    assert "too few scores" in words
    assert "holds no pairs" in words


def test_same_pairs_give_the_same_bytes_and_nothing_else_is_left(tmp_path):
    write_run(tmp_path, pairs_table(5), clips=False)
    first = build_report(tmp_path).read_bytes()
    assert build_report(tmp_path).read_bytes() == first
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["index.html"]


def test_missing_pairs_and_missing_columns_say_what_to_do(tmp_path):
    with pytest.raises(ValueError, match=r"holds no pairs dataset.*pipeline\.rank"):
        build_report(tmp_path)
    write_run(tmp_path, pairs_table(2).drop(columns=["margin_audio", "chosen_video_path"]), clips=False)
    with pytest.raises(ValueError, match=r"lacks the columns margin_audio, chosen_video_path"):
        build_report(tmp_path)


def test_command_prints_and_writes_its_summary(tmp_path, capsys):
    write_run(tmp_path, pairs_table(2), clips=False)
    assert main(["--output_dir", str(tmp_path), "--title", "My run", "--dry_run"]) == 0
    assert "2 pairs (dry run: nothing written)" in capsys.readouterr().out
    assert not (tmp_path / "report").exists()

    assert main(["--output_dir", str(tmp_path), "--title", "My run"]) == 0
    printed = capsys.readouterr().out
    assert "report: wanted 2, done 2 (skipped 0), failed 0" in printed
    assert str(tmp_path / "report" / "index.html") in printed
    assert json.loads((tmp_path / "report" / "summary.json").read_text())["settings"]["title"] == "My run"


def test_command_ends_with_one_line_for_a_users_mistake(tmp_path, capsys):
    assert main(["--output_dir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "holds no pairs dataset" in error
    assert error.count("\n") == 1
