"""`pipeline.rank` from tables on disk to a dataset on disk; needs neither Ray nor clips."""

import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from datasets import load_from_disk

from pipeline.rank import RankConfig, main, rank
from pipeline.ranking import RANKED_METRICS
from pipeline.schema import CANDIDATES, SCORES, pairs_schema, write_table
from tests.pipeline.fakes import HOSTILE
from tests.pipeline.test_ranking import STRATEGIES, random_table


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
    assert {*dataset.column_names} == {*pairs_schema([*RANKED_METRICS, "loudness"]).names}
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


def test_mixed_durations_are_pointed_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
