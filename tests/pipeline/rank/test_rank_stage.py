"""`pipeline.rank` from tables on disk to a dataset on disk; needs neither Ray nor clips."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from datasets import load_from_disk
from PIL import Image

from core.schema import CANDIDATES, SCORES, pairs_schema, write_table
from jobs.lock import lock_folder
from pipeline.rank.command import main, rank
from pipeline.rank.config import RankConfig
from pipeline.rank.pairing import RANKED_METRICS
from tests.pipeline.fakes import HOSTILE
from tests.pipeline.rank.ranking_tables import STRATEGIES, random_table


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Drawing takes longer than all the rest."""
    if "with_plots" not in request.fixturenames:
        monkeypatch.setattr("pipeline.rank.command.draw_plots", lambda report, folder: [])


@pytest.fixture
def with_plots() -> None:
    pass


def write_tables(output_dir: Path, table: pd.DataFrame) -> None:
    for name in ("candidates", "scores"):
        (output_dir / name).mkdir(exist_ok=True)
    texts = (
        table["prompt_id"]
        .map({f"p{number:04d}": text for number, text in enumerate(HOSTILE)})
        .fillna(table["prompt_id"])
    )
    candidates = table[["candidate_id", "index", "is_ground_truth"]].assign(
        prompt_id=texts,
        prompt=texts,
        video_path=[f"media/{row}.mp4" for row in range(len(table))],
        audio_path=[f"media/{row}.wav" for row in range(len(table))],
        seed=pd.array([None if truth else 2**62 + row for row, truth in enumerate(table["is_ground_truth"])], "Int64"),
        **{"num_frames": 33, "height": 64, "width": 64, "fps": 16.0, "sample_rate": 16000, "duration_s": 33 / 16},
    )
    write_table(pa.Table.from_pandas(candidates), CANDIDATES, output_dir / "candidates" / "candidates.parquet")
    scores = table[["candidate_id", *RANKED_METRICS]].assign(error=None, reasons=None, loudness=0.5)
    write_table(pa.Table.from_pandas(scores), SCORES, output_dir / "scores" / "scores.parquet")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_writes_a_dataset_with_all_columns(strategy: str, tmp_path: Path) -> None:
    write_tables(tmp_path, random_table())
    rank(RankConfig(output_dir=tmp_path, strategy=strategy))
    dataset = load_from_disk(str(tmp_path / "pairs"))
    assert len(dataset) > 5
    assert {*dataset.column_names} == {"pair_id", *pairs_schema([*RANKED_METRICS, "loudness"]).names}
    row = dataset[len(dataset) - 1]
    assert row["chosen_video_path"].startswith("../candidates/media/")
    assert row["num_frames"] == 33
    if strategy != "inconsistent":
        number = int(Path(row["chosen_video_path"]).stem)
        assert row["chosen_seed"] in (None, 2**62 + number)


def test_hostile_prompts_come_through(tmp_path: Path) -> None:
    write_tables(tmp_path, random_table(num_prompts=len(HOSTILE), num_candidates=12))
    rank(RankConfig(output_dir=tmp_path))
    dataset = load_from_disk(str(tmp_path / "pairs"))
    attrition = pd.read_parquet(tmp_path / "pairs" / "attrition.parquet")
    assert sorted([*dataset["prompt_id"], *attrition["prompt_id"]]) == sorted(HOSTILE)
    assert dataset["prompt"] == dataset["prompt_id"]


def test_no_pairs_give_an_empty_dataset_that_opens(tmp_path: Path) -> None:
    write_tables(tmp_path, random_table(num_candidates=1))
    rank(RankConfig(output_dir=tmp_path))
    dataset = load_from_disk(str(tmp_path / "pairs"))
    assert len(dataset.to_pandas()) == 0
    assert "chosen_video_path" in dataset.column_names


def test_ranking_again_follows_tables_and_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = random_table()
    write_tables(tmp_path, table)
    config = RankConfig(output_dir=tmp_path)
    assert rank(config).skipped == 0
    assert rank(config).skipped == 60
    assert rank(RankConfig(output_dir=tmp_path, ground_truth="never")).skipped == 0
    first = load_from_disk(str(tmp_path / "pairs")).to_pandas()
    write_tables(tmp_path, table.assign(ib_av=table["ib_av"] * [(-1) ** row for row in range(len(table))]))
    rank(RankConfig(output_dir=tmp_path, ground_truth="never"))
    assert not load_from_disk(str(tmp_path / "pairs")).to_pandas().equals(first)
    assert {path.name for path in tmp_path.iterdir()} == {"candidates", "scores", "pairs"}
    assert "pairs from 60 prompts" in capsys.readouterr().out


def test_standardisation_is_saved_with_the_pairs(tmp_path: Path) -> None:
    table = random_table()
    write_tables(tmp_path, table)
    rank(RankConfig(output_dir=tmp_path))
    statistics = json.loads((tmp_path / "pairs" / "ranking.json").read_text())["statistics"]
    for metric in RANKED_METRICS:
        assert statistics[metric]["mean"] == pytest.approx(table[metric].mean(), abs=1e-12)
        assert statistics[metric]["std"] == pytest.approx(table[metric].std())


def test_mixed_durations_give_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tables(tmp_path, random_table())
    path = tmp_path / "candidates" / "candidates.parquet"
    frame = pd.read_parquet(path)
    frame.loc[0, "duration_s"] = 5.0
    write_table(pa.Table.from_pandas(frame), CANDIDATES, path)
    rank(RankConfig(output_dir=tmp_path))
    assert "2.06 to 5.00 s" in capsys.readouterr().out


def test_missing_input_and_metric_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--output_dir", str(tmp_path)]) == 2
    assert "python -m pipeline.sample" in capsys.readouterr().err
    write_tables(tmp_path, random_table())
    path = tmp_path / "scores" / "scores.parquet"
    write_table(pa.Table.from_pandas(pd.read_parquet(path).drop(columns="ib_tv")), SCORES, path)
    assert main(["--output_dir", str(tmp_path)]) == 2
    assert "--rewards imagebind" in capsys.readouterr().err


@pytest.mark.usefixtures("with_plots")
def test_report_is_written_beside_the_pairs_as_json_text_and_plots(tmp_path: Path) -> None:
    write_tables(tmp_path, random_table())
    rank(RankConfig(output_dir=tmp_path, ground_truth="never", min_margin=1.0))
    folder = tmp_path / "pairs"
    report = json.loads((folder / "ranking.json").read_text(), parse_constant=pytest.fail)
    text = (folder / "ranking.txt").read_text()
    assert f"{report['num_pairs']} pairs; {report['num_pairs']} of 60 prompts" in text
    for reason, count in report["attrition"].items():
        assert [line for line in text.splitlines() if reason in line and str(count) in line]
    assert "sum at least 1" in text
    for name in ("metrics", "margins", "agreement"):
        with Image.open(folder / "plots" / f"{name}.png") as image:
            assert image.width > 1000
            assert image.convert("L").getextrema() == (0, 255)
    assert load_from_disk(str(folder)).num_rows == report["num_pairs"]


def test_several_pairs_of_a_prompt_are_rows_of_their_own(tmp_path: Path) -> None:
    write_tables(tmp_path, random_table())
    assert main(["--output_dir", str(tmp_path), "--pairs_per_prompt", "3"]) == 0
    pairs = load_from_disk(str(tmp_path / "pairs")).to_pandas()
    assert pairs["pair_id"].is_unique
    assert pairs["prompt_id"].value_counts().max() == 3
    report = json.loads((tmp_path / "pairs" / "ranking.json").read_text())
    assert report["num_pairs"] == len(pairs) > report["num_prompts_with_pair"] == pairs["prompt_id"].nunique()


def test_rules_come_from_yaml_and_changed_rules_are_ranked_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tables(tmp_path, random_table())
    recipe = tmp_path / "rank.yaml"
    recipe.write_text("min_modality_margins: {audio: 0.4, audio_video: null}\nwinner_gates: [loudness >= 0.5]\n")
    arguments = ["--config", str(recipe), "--output_dir", str(tmp_path)]
    assert main(arguments) == main(arguments) == 0
    assert "skipped 60" in capsys.readouterr().out
    pairs = load_from_disk(str(tmp_path / "pairs")).to_pandas()
    assert pairs["margin_audio"].min() >= 0.4
    assert pairs["margin_audio_video"].min() < 0
    recipe.write_text("winner_gates: [loudness >= 0.6]\n")
    assert main(arguments) == 0
    assert "0 pairs from 60 prompts" in capsys.readouterr().out


def test_second_batch_on_the_statistics_of_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    table = random_table(num_prompts=200)
    for folder in (first, second):
        folder.mkdir()
    write_tables(first, table)
    write_tables(second, table[:80].assign(audio_quality=table["audio_quality"][:80] * 1000))
    rank(RankConfig(output_dir=first))
    saved = first / "pairs" / "ranking.json"
    assert main(["--output_dir", str(second), "--statistics", str(saved)]) == 0
    report = json.loads((second / "pairs" / "ranking.json").read_text())
    assert report["statistics"] == json.loads(saved.read_text())["statistics"]
    assert report["own_statistics"]["audio_quality"]["std"] > 500
    pairs = load_from_disk(str(second / "pairs")).to_pandas()
    assert pairs["margin_audio"].median() > 100  # in deviations of the first batch

    capsys.readouterr()
    assert main(["--output_dir", str(second), "--statistics", str(second / "scores" / "scores.parquet")]) == 2
    assert "holds no statistics" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--output_dir", str(second), "--statistics", str(saved), "--strategy", "modality_macro"])
    assert "modality_macro compares ranks" in capsys.readouterr().err


def test_scores_in_another_order_are_joined_by_id(tmp_path: Path) -> None:
    write_tables(tmp_path, random_table())
    rank(RankConfig(output_dir=tmp_path))
    expected = load_from_disk(str(tmp_path / "pairs")).to_pandas()
    path = tmp_path / "scores" / "scores.parquet"
    shuffled = pd.read_parquet(path).sample(frac=1, random_state=0)
    write_table(pa.Table.from_pandas(shuffled, preserve_index=False), SCORES, path)
    rank(RankConfig(output_dir=tmp_path))
    pd.testing.assert_frame_equal(load_from_disk(str(tmp_path / "pairs")).to_pandas(), expected)
    write_table(pa.Table.from_pandas(shuffled[1:], preserve_index=False), SCORES, path)
    rank(RankConfig(output_dir=tmp_path))
    assert (
        json.loads((tmp_path / "pairs" / "ranking.json").read_text())["candidates"]["left_out_for_missing_scores"] == 1
    )


def test_a_second_ranking_into_the_same_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tables(tmp_path, random_table())
    with lock_folder(tmp_path / "pairs"):
        assert main(["--output_dir", str(tmp_path)]) == 2
    assert f"in use by another run: process {os.getpid()}" in capsys.readouterr().err
    assert not (tmp_path / "pairs").exists()
    assert main(["--output_dir", str(tmp_path)]) == 0
