"""`python -m pipeline.convert`: detection of the input, and paths that are valid from the output's folder."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from datasets import load_from_disk
from trl.data_utils import is_conversational, unpair_preference_dataset

from core.lineage import LABELLED, UNKNOWN
from dpo.data.pairs import missing_files, pairs_lineage, read_pairs
from pipeline.convert import main
from pipeline.rank.command import rank
from pipeline.rank.config import RankConfig
from tests.golden_files import golden_path
from tests.pipeline.exchange.test_convert_release import release_rewards
from tests.pipeline.rank.ranked_run import run

__all__ = ["run"]


def convert(*argv: object) -> int:
    return main([str(arg) for arg in argv])


def test_release_rewards_become_a_run_that_ranks_to_the_release_csv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    release_rewards().to_csv("rewards.csv", index=False)
    assert convert("--from", "rewards.csv", "--to", "runs/imported") == 0
    rank(RankConfig(output_dir=Path("runs/imported")))
    assert convert("--from", "runs/imported/pairs", "--to", "pairs.csv") == 0
    assert convert("--from", "pairs.csv", "--to", "runs/theirs/pairs") == 0
    assert convert("--from", "runs/theirs/pairs", "--to", "again.csv") == 0
    pairs = pd.read_csv("pairs.csv")
    golden = pd.read_csv(golden_path("ranking/pairs_micro.csv"))
    assert pairs["id"].tolist() == golden["id"].tolist()
    assert pairs["path"].tolist() == golden["path"].tolist()
    assert pairs["audio_id"].tolist() == pairs["id"].str.replace("p", "a").tolist()
    assert Path("again.csv").read_bytes() == Path("pairs.csv").read_bytes()
    assert pairs_lineage(Path("runs/theirs/pairs")) == UNKNOWN  # a CSV has no lineage


def test_pairs_folder_to_csv_and_back_finds_its_clips(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert convert("--from", run / "pairs", "--to", "meta/pairs.csv") == 0
    frame = pd.read_csv("meta/pairs.csv")
    assert frame["path"].map(lambda path: Path(path).is_file()).all()
    assert convert("--from", "meta/pairs.csv", "--to", "elsewhere/deep/pairs") == 0
    pairs = read_pairs(tmp_path / "elsewhere" / "deep" / "pairs")
    assert not any(missing_files(tmp_path / "elsewhere" / "deep" / "pairs", pairs))
    assert len(pairs) == len(load_from_disk(str(run / "pairs")))


def test_media_root_is_the_base_of_paths_in_the_csv(run: Path, tmp_path: Path) -> None:
    assert convert("--from", run / "pairs", "--to", tmp_path / "pairs.csv", "--media_root", run) == 0
    assert pd.read_csv(tmp_path / "pairs.csv")["path"].str.startswith("candidates/media/").all()


@pytest.mark.parametrize("name", ["view.jsonl", "view.parquet", "view"])
def test_trl_accepts_the_trl_view(name: str, run: Path) -> None:
    from datasets import Dataset

    assert convert("--from", run / "pairs", "--to", run / name, "--format", "trl") == 0
    if name == "view":
        dataset = load_from_disk(str(run / name))
    else:
        dataset = getattr(Dataset, "from_json" if name.endswith("jsonl") else "from_parquet")(str(run / name))
    pairs = load_from_disk(str(run / "pairs"))
    assert len(dataset) == len(pairs)
    row = dataset[0]
    assert is_conversational(row)
    assert row["prompt"] == [{"role": "user", "content": pairs[0]["prompt"]}]
    video, audio = row["chosen"][0]["content"]
    assert (video["type"], audio["type"]) == ("video", "audio")
    assert (run / video["path"] if name != "view" else run / name / video["path"]).is_file()
    assert len(unpair_preference_dataset(dataset.remove_columns("prompt_id"))) == 2 * len(pairs)


def test_labels_replace_the_ranking(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = load_from_disk(str(run / "pairs")).to_pandas()
    labels = pairs.head(10)[["pair_id"]].assign(
        a=pairs["rejected_candidate_id"], b=pairs["chosen_candidate_id"], winner=["a"] * 4 + ["b"] * 5 + ["tie"]
    )
    labels.to_csv(run / "ann.csv", index=False)
    labels.assign(winner=["a"] * 9 + ["tie"]).to_csv(run / "ben.csv", index=False)
    labels.assign(winner="b").head(4).to_csv(run / "cy.csv", index=False)
    files = [run / f"{name}.csv" for name in ("ann", "ben", "cy")]
    assert convert("--from", run / "pairs", "--to", run / "human", "--labels", *files) == 0
    human = load_from_disk(str(run / "human")).to_pandas()
    assert human["chosen_candidate_id"].tolist() == pairs["rejected_candidate_id"].tolist()[:4]
    assert human["margin"].tolist() == (-pairs["margin"]).tolist()[:4]
    assert (human["label_source"] == "human").all()
    assert not any(missing_files(run / "human", read_pairs(run / "human")))
    told = json.loads((run / "human" / "ranking.json").read_text())
    assert told["labels"]["counts"] == {
        "tie, dropped": 6,
        "loser of the ranking preferred": 4,
        "not labelled, dropped": len(pairs) - 10,
    }
    assert told["yield"] == pytest.approx(4 / 60)
    assert "inputs" not in told
    assert pairs_lineage(run / "human") == LABELLED
    assert "kappa" in capsys.readouterr().out


def test_pairs_that_nobody_labelled_keep_the_rewards_that_chose_them(run: Path) -> None:
    ranked = pairs_lineage(run / "pairs")
    assert ranked.trainings[0].source == "rewards"
    pairs = load_from_disk(str(run / "pairs")).to_pandas().head(1)
    pairs[["pair_id"]].assign(a=pairs["rejected_candidate_id"], b=pairs["chosen_candidate_id"], winner="a").to_csv(
        run / "ann.csv", index=False
    )
    labels = ["--labels", run / "ann.csv"]
    assert convert("--from", run / "pairs", "--to", run / "mixed", *labels, "--keep_unlabelled", "true") == 0
    assert pairs_lineage(run / "mixed") == ranked.then(LABELLED)
    assert convert("--from", run / "pairs", "--to", run / "copy") == 0
    assert pairs_lineage(run / "copy") == ranked


def test_labels_alone_make_pairs_of_candidates(run: Path) -> None:
    (run / "labels.csv").write_text("a,b,modality,winner\np0003/1,p0003/2,overall,b\np0005/gt,p0005/0,overall,a\n")
    assert convert("--from", run, "--to", run / "human", "--labels", run / "labels.csv") == 0
    human = load_from_disk(str(run / "human"))
    assert human["pair_id"][:] == ["p0003/2>p0003/1", "p0005/gt>p0005/0"]
    assert human["chosen_is_ground_truth"][:] == [False, True]
    assert not any(missing_files(run / "human", read_pairs(run / "human")))


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--from", "{run}", "--to", "{run}/new"], "Give its pairs folder"),
        (["--from", "{run}/pairs", "--to", "{run}"], "would be lost"),
        (["--from", "{run}/pairs", "--to", "{run}/taken.csv"], "--overwrite"),
        (["--from", "{run}/scores", "--to", "{run}/new"], "neither a pairs dataset nor candidates"),
        (["--from", "{run}/taken.csv", "--to", "{run}/new"], "neither pred_video_path"),
        (["--from", "{run}/pairs", "--to", "{run}/new", "--labels", "{run}/taken.csv"], "which are no labels"),
    ],
)
def test_mistakes_are_explained(argv: list[str], words: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "taken.csv").write_text("x,y\n1,2\n")
    before = (run / "scores" / "scores.parquet").read_bytes()
    assert convert(*(arg.format(run=run) for arg in argv), *(["--overwrite"] if words == "would be lost" else [])) == 2
    assert words in capsys.readouterr().err
    assert (run / "scores" / "scores.parquet").read_bytes() == before
