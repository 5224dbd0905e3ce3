"""Sharing pairs: uploaded files, the card, and training on a download. A folder replaces the hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import load_from_disk
from huggingface_hub.errors import HTTPError

from dpo.data.pairs import missing_files, read_pairs
from pipeline import hub
from pipeline.convert import main as convert
from pipeline.hub import download, load, push_to_hub
from tests.pipeline.rank.ranked_run import run

__all__ = ["run"]


class FolderHub:
    """Replacement for huggingface_hub.HfApi; repositories are folders under `root`."""

    root: Path
    calls: list[tuple[str, dict[str, Any]]]

    def __init__(self, token: str | None = None) -> None:
        self.token = token

    def create_repo(self, repo_id: str, **options: Any) -> None:
        self.calls.append(("create_repo", {"repo_id": repo_id, "token": self.token, **options}))
        (self.root / repo_id).mkdir(parents=True, exist_ok=options["exist_ok"])

    def upload_folder(self, *, repo_id: str, folder_path: Path, **options: Any) -> None:
        self.calls.append(("upload_folder", {"repo_id": repo_id, **options}))
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)

    def snapshot_download(self, repo_id: str, *, local_dir: Path, **options: Any) -> None:
        shutil.copytree(self.root / repo_id, local_dir, dirs_exist_ok=True)


@pytest.fixture
def fake_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[FolderHub]:
    monkeypatch.setattr(FolderHub, "root", tmp_path / "hub", raising=False)
    monkeypatch.setattr(FolderHub, "calls", [], raising=False)
    monkeypatch.setattr(huggingface_hub, "HfApi", FolderHub)
    return FolderHub


def card_of(folder: Path) -> tuple[dict[str, Any], str]:
    _, front, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front), text


def row_of(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(f"| {name} |"))


def test_card_states_the_origin_of_the_pairs(run: Path) -> None:
    staged = push_to_hub(run / "pairs", "ann/my-pairs", licence="cc-by-nc-4.0", dry_run=True)
    front, text = card_of(staged)
    ranking = json.loads((run / "pairs" / "ranking.json").read_text())
    assert front["license"] == "cc-by-nc-4.0"
    assert [config["config_name"] for config in front["configs"]] == ["pairs", "candidates", "scores"]
    assert all((staged / config["data_files"]).is_file() for config in front["configs"])
    assert "javis-sft; weights 0123456789ab" in row_of(text, "source model")
    assert "run seed 7" in row_of(text, "seeds")
    assert row_of(text, "sampling") == "| sampling | num_candidates 3 |"
    assert "imagebind version 3 (weights ba9876543210); my_reward version 0.1" in row_of(text, "rewards")
    assert "javisbench" in row_of(text, "scoring protocol")
    assert "any: a real clip may win or lose" in row_of(text, "ground truth")
    assert f"{ranking['num_pairs']} pairs, {ranking['yield']:.0%} of prompts; " in row_of(text, "yield")
    assert "CC BY-NC-SA 4.0" in row_of(text, "reward imagebind")
    assert "as its author states" in row_of(text, "reward my_reward")
    for column in load_from_disk(str(run / "pairs")).column_names:
        assert row_of(text, f"`{column}`").count("|") == 4, column
    assert "lower is better" in row_of(text, "`chosen_desync`")


def test_uploaded_files_contain_no_local_paths(run: Path) -> None:
    staged = push_to_hub(run / "pairs", "ann/my-pairs", dry_run=True)
    assert not [path for path in staged.rglob("*") if path.is_file() and b"/home/ann" in path.read_bytes()]
    assert b"ba9876543210" in pq.read_schema(staged / "scores" / "scores.parquet").metadata[b"avdpo.rewards"]


def test_card_of_labelled_pairs_has_their_agreement(run: Path) -> None:
    pairs = load_from_disk(str(run / "pairs")).to_pandas().head(4)
    pairs[["pair_id"]].assign(winner=["chosen", "chosen", "rejected", "tie"]).to_csv(run / "ann.csv", index=False)
    argv = ["--from", str(run / "pairs"), "--to", str(run / "human"), "--labels", str(run / "ann.csv")]
    assert convert(argv) == 0
    _, text = card_of(push_to_hub(run / "human", "ann/human", dry_run=True))
    assert "2 x winner of the ranking; 1 x loser of the ranking preferred" in text
    assert row_of(text, "overall").startswith("| overall | 4 | 1 | 4 | - | 0.67 |")


def test_push_and_download_give_pairs_that_can_be_trained_on(
    run: Path, fake_hub: type[FolderHub], tmp_path: Path
) -> None:
    push_to_hub(run / "pairs", "ann/my-pairs", private=True, media="clips", token="secret")
    (name, created), (_, uploaded) = fake_hub.calls
    assert (name, created["private"], created["repo_type"]) == ("create_repo", True, "dataset")
    assert (created["token"], uploaded["repo_type"]) == ("secret", "dataset")
    shutil.rmtree(run)
    pairs = download("ann/my-pairs", tmp_path / "theirs")
    rows = read_pairs(pairs)
    assert not any(missing_files(pairs, rows))
    clip = tmp_path / "theirs" / "pairs" / rows[0]["chosen_video_path"]
    assert clip.read_text() == f"{clip.stem} mp4"
    shared = len(list((tmp_path / "theirs" / "candidates" / "media").iterdir()))
    assert shared == 4 * len(rows)  # mp4 and wav of both sides: the pairs' clips and no others
    assert json.loads((pairs / "ranking.json").read_text())["strategy"] == "modality_micro"


def test_load_reads_every_form(run: Path, fake_hub: type[FolderHub], monkeypatch: pytest.MonkeyPatch) -> None:
    want = load_from_disk(str(run / "pairs")).to_pandas()
    staged = push_to_hub(run / "pairs", "ann/my-pairs")
    assert load(run / "pairs").to_pandas().equals(want)
    assert load(staged)["pair_id"][:] == want["pair_id"].tolist()
    front, _ = card_of(fake_hub.root / "ann" / "my-pairs")
    data = datasets.load_dataset(str(fake_hub.root / "ann" / "my-pairs"), "pairs", split="train")  # by the card
    assert front["configs"][0]["default"]
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **options: (args, options))
    assert load("ann/my-pairs", revision="v1") == (("ann/my-pairs", "pairs"), {"split": "train", "revision": "v1"})
    assert data["margin"][:] == want["margin"].tolist()
    with pytest.raises(ValueError, match=r"holds neither a pairs dataset nor data/pairs\.parquet"):
        load(run)


def test_dry_run_pushes_nothing_and_pushing_again_replaces(
    run: Path, fake_hub: type[FolderHub], capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--pairs", str(run / "pairs"), "--repo_id", "ann/my-pairs"]
    assert hub.main([*argv, "--media", "clips", "--dry_run"]) == 0
    assert not fake_hub.calls
    assert (run / "pairs_hub" / "candidates" / "media").is_dir()
    assert "would be pushed (dry run)" in capsys.readouterr().out
    assert hub.main(argv) == 0
    assert [name for name, _ in fake_hub.calls] == ["create_repo", "upload_folder"]
    assert not (fake_hub.root / "ann" / "my-pairs" / "candidates" / "media").exists()
    assert load_from_disk(str(run / "pairs"))[0]["chosen_video_path"].startswith("../candidates/")


def test_mistakes_and_refusals_are_explained(
    run: Path, fake_hub: type[FolderHub], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--pairs", str(run / "pairs"), "--repo_id", "ann/my-pairs"]
    assert hub.main([*argv, "--media", "latents"]) == 0  # the run kept none
    shutil.rmtree(run / "candidates" / "media")
    assert hub.main([*argv, "--media", "clips"]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert hub.main(["--pairs", str(run / "scores"), "--repo_id", "ann/my-pairs"]) == 2
    assert "holds no dataset" in capsys.readouterr().err

    def refuse(*args: Any, **options: Any) -> None:
        raise HTTPError("401 Unauthorized")

    monkeypatch.setattr(FolderHub, "create_repo", refuse)
    assert hub.main(argv) == 2
    assert "401 Unauthorized" in (told := capsys.readouterr().err)
    assert "hf auth login" in told
    for wrong in (["--repo_id", "ann/my-pairs"], ["--pairs", "x", "--repo_id", "my-pairs"]):
        with pytest.raises(SystemExit):
            hub.main(wrong)
    assert "owner/name" in capsys.readouterr().err


def test_clip_outside_of_the_run_is_not_uploaded(run: Path, tmp_path: Path) -> None:
    argv = ["--from", str(run / "pairs"), "--to", str(tmp_path / "elsewhere" / "pairs")]
    assert convert(argv) == 0
    with pytest.raises(ValueError, match=r"is not inside .*elsewhere"):
        push_to_hub(tmp_path / "elsewhere" / "pairs", "ann/my-pairs", media="clips", dry_run=True)
