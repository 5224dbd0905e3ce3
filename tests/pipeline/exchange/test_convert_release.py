"""Reading and writing the release's CSV files: equal to its own tool's output, without loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.convert import read_javisdit_pairs, read_javisdit_rewards, write_javisdit_pairs
from pipeline.rank.pairing import RANKED_METRICS, rank_pairs
from tests.golden_files import golden_path


def release_rewards(num_prompts: int = 400) -> pd.DataFrame:
    """Return the golden rewards of the first prompts, unordered, with texts that need quoting."""
    rewards = pd.read_csv(golden_path("ranking/rewards.csv"))
    number = rewards["id"].str[1:].astype(int)
    return rewards.assign(text='a clip, said "twice": ' + number.astype(str))[number < num_prompts]


@pytest.fixture
def rewards_csv(tmp_path: Path) -> Path:
    release_rewards().to_csv(tmp_path / "pool_avreward.csv", index=False)
    return tmp_path / "pool_avreward.csv"


@pytest.mark.parametrize("suffix", ["", "_generated_only"])
@pytest.mark.parametrize("strategy", ["micro", "macro"])
def test_pairs_csv_equals_the_published_tool_byte_for_byte(strategy: str, suffix: str, tmp_path: Path) -> None:
    theirs = golden_path(f"ranking/pairs_{strategy}{suffix}.csv")
    candidates = read_javisdit_rewards(golden_path("ranking/rewards.csv"))
    pairs = rank_pairs(candidates, f"modality_{strategy}", "never" if suffix else "any").pairs
    write_javisdit_pairs(pairs, tmp_path / "pairs.csv", candidates)
    assert (tmp_path / "pairs.csv").read_bytes() == theirs.read_bytes()
    write_javisdit_pairs(read_javisdit_pairs(theirs), tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == theirs.read_bytes()


def test_rewards_csv_gives_the_candidates_and_scores_that_were_ranked(rewards_csv: Path) -> None:
    frame = read_javisdit_rewards(rewards_csv)
    golden = pd.read_csv(golden_path("ranking/rewards.csv")).rename(columns={"desync_scores": "desync"})
    names = golden["pred_video_path"].str.extract(r"-(\d+)\.mp4$", expand=False).fillna("gt")
    assert frame["candidate_id"].tolist() == (golden["id"] + "/" + names).tolist()
    assert frame["is_ground_truth"].sum() == golden["id"].nunique()
    for metric in RANKED_METRICS:
        assert np.array_equal(frame[metric], golden[metric]), metric
    row = frame[frame["is_ground_truth"]].iloc[0]
    assert (row["video_path"], row["sample_rate"], row["duration_s"]) == (f"data/gt/{row['relpath']}", 16000, 81 / 16)


def test_pairs_come_back_as_they_were_ranked(rewards_csv: Path, tmp_path: Path) -> None:
    candidates = read_javisdit_rewards(rewards_csv)
    pairs = rank_pairs(candidates).pairs
    write_javisdit_pairs(pairs, tmp_path / "pairs.csv", candidates)
    back = read_javisdit_pairs(tmp_path / "pairs.csv")
    assert len(back) > 300
    for name in ("pair_id", "prompt_id", "prompt", "num_frames", "height", "width", "fps", "sample_rate"):
        assert back[name].tolist() == pairs[name].tolist(), name
    for side in ("chosen", "rejected"):
        for name in ("candidate_id", "video_path", "audio_path", "is_ground_truth"):
            assert back[f"{side}_{name}"].tolist() == pairs[f"{side}_{name}"].tolist(), name


def test_several_pairs_of_a_prompt_come_back(rewards_csv: Path, tmp_path: Path) -> None:
    pairs = rank_pairs(read_javisdit_rewards(rewards_csv)).pairs.head(2)
    pairs = pd.concat([pairs, pairs.head(1).assign(rejected_video_path="data/dpo_gen/sample_0001-7.mp4")])
    write_javisdit_pairs(pairs, tmp_path / "pairs.csv")
    assert read_javisdit_pairs(tmp_path / "pairs.csv")["rejected_candidate_id"].iloc[2] == "p00001/7"


def test_names_without_numbers_are_numbered_by_path_not_by_row(tmp_path: Path) -> None:
    frame = release_rewards(num_prompts=3)
    named = frame["pred_video_path"].str.replace(r"sample_(\d+)-(\d)", r"take-\1-\2x", regex=True)
    for name, rows in (("one", frame.index), ("two", frame.index[::-1])):
        frame.assign(pred_video_path=named).loc[rows].to_csv(tmp_path / f"{name}.csv", index=False)
    one, two = (read_javisdit_rewards(tmp_path / f"{name}.csv") for name in ("one", "two"))
    ids = one.set_index("video_path")["candidate_id"]
    assert ids.to_dict() == two.set_index("video_path")["candidate_id"].to_dict()
    assert ids["data/dpo_gen/take-0002-1x.mp4"] == "p00002/1"


def test_missing_score_is_null_and_excludes_only_its_candidate(tmp_path: Path) -> None:
    frame = release_rewards(num_prompts=50)
    frame.loc[frame.index[0], "ib_av"] = None
    frame.to_csv(tmp_path / "rewards.csv", index=False)
    candidates = read_javisdit_rewards(tmp_path / "rewards.csv")
    assert candidates["ib_av"].isna().tolist() == [True] + [False] * 199
    assert rank_pairs(candidates).report["candidates"]["left_out_for_missing_scores"] == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda frame: frame.drop(columns="pred_video_path"), ["pred_video_path", "published rewards table"]),
        (lambda frame: frame.drop(columns=[*frame.columns[-7:]]), ["no scores"]),
        (lambda frame: pd.concat([frame, frame.head(1)]), ["candidate_id", "row 12", "unique"]),
        (lambda frame: frame.assign(pred_height=["tall", *[480] * 11]), ["height", "row 0", "tall"]),
        (lambda frame: frame.head(0), ["no rows"]),
    ],
)
def test_unusable_rewards_are_named(change, words: list[str], tmp_path: Path) -> None:
    change(release_rewards(num_prompts=3)).to_csv(tmp_path / "rewards.csv", index=False)
    with pytest.raises(ValueError, match=r"rewards\.csv") as caught:
        read_javisdit_rewards(tmp_path / "rewards.csv")
    assert all(word in str(caught.value) for word in words), caught.value


def test_pairs_without_a_size_cannot_become_the_release_csv(tmp_path: Path) -> None:
    pairs = rank_pairs(read_release(tmp_path).drop(columns="height")).pairs
    with pytest.raises(ValueError, match=r"no height"):
        write_javisdit_pairs(pairs, tmp_path / "pairs.csv")
    assert not (tmp_path / "pairs.csv").exists()


def read_release(tmp_path: Path) -> pd.DataFrame:
    release_rewards(num_prompts=20).to_csv(tmp_path / "rewards.csv", index=False)
    return read_javisdit_rewards(tmp_path / "rewards.csv")
