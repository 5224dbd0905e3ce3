"""The command that makes pairs from good clips."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import load_from_disk

from core.lineage import CONSTRUCTED, LABELLED, read_lineage, write_lineage
from dpo.construct.command import construct, main
from dpo.construct.config import ConstructConfig
from dpo.construct.guards import NOTHING_LEFT, ON_THE_BEAT, STEADY
from dpo.construct.shift import Shifter
from dpo.construct.winners import Winners
from dpo.data.dataset import PairDataset
from dpo.data.verdict import read_verdicts, write_verdicts
from dpo.train.command import main as train
from media.probe import probe
from model.javisdit.pipeline import JointAVPipeline
from model.prepare import parts as prepare_parts
from tests.dpo.dpo_helpers import make_rows, save_rows
from tests.dpo.dpo_pipeline import save_pipeline
from tests.dpo.good_clips import SCENES, prepare_latents

STAGES = ["0.16-0.32", "0.08-0.12"]
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    monkeypatch.setattr(prepare_parts, "MIN_ROWS_PER_PART", 2)


@pytest.fixture(scope="module")
def constructed(good_latents, tmp_path_factory):
    """The dataset of an undisturbed run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare_parts, "MIN_ROWS_PER_PART", 2)
        folder = tmp_path_factory.mktemp("constructed") / "data"
        construct(settings(good_latents, folder))
    return folder


def settings(latents, folder, **changes):
    values = {"latents": str(latents), "output": str(folder), "stages": STAGES, "signal_clips": 0}
    return ConstructConfig(**(values | changes))


def contents(folder):
    names = ("state.json", "dataset_info.json", "failures.parquet", "negative_text.safetensors", "encoders.json")
    paths = [*(folder / name for name in names), *sorted((folder / "data").iterdir()), *folder.glob("silence-*")]
    return {path.name: path.read_bytes() for path in paths}


def test_winners_are_the_clips_bit_for_bit_and_losers_their_shifted_sound(constructed, good_latents, tmp_path):
    winners, shifter = Winners(good_latents), Shifter(JointAVPipeline.from_pretrained("tiny"), tmp_path)
    rows = load_from_disk(str(constructed)).with_format("numpy")
    assert len(rows) == len(STAGES) * len(SCENES)
    for number, row in enumerate(rows):
        winner, stage = winners[number // len(STAGES)], number % len(STAGES)
        assert (row["pair_id"], row["stage"]) == (f"{winner.winner_id}>stage-{stage}", stage)
        assert (row["prompt_id"], row["prompt"]) == (winner.winner_id, winner.columns["prompt"])
        assert np.array_equal(row["chosen_video_latents"].astype(np.float16), winner.latents["video"].ravel())
        assert np.array_equal(row["rejected_video_latents"].astype(np.float16), winner.latents["video"].ravel())
        assert np.array_equal(row["chosen_audio_latents"].astype(np.float16), winner.latents["audio"].ravel())
        steps = round(float(row["distortion_s"]) / 0.04)
        low, high = ((4, 8), (2, 3))[stage]
        assert low <= abs(steps) <= high
        assert np.array_equal(row["rejected_audio_latents"].astype(np.float16), shifter.shifted(winner, steps).ravel())
    assert read_lineage(constructed) == CONSTRUCTED


def test_training_opens_the_pairs_unchanged(constructed):
    dataset = PairDataset.load(constructed)
    dataset.check_model("tiny")
    dataset.check_network(JointAVPipeline.from_pretrained("tiny").transformer)
    dataset.check_finite()
    assert dataset.negative_text is not None
    assert dataset[0].chosen["video"].shape == (8, 9, 8, 8)
    assert np.isnan(dataset[0].margin)


def test_killed_run_goes_on_where_it_stopped_and_makes_the_same_rows(constructed, good_latents, tmp_path):
    code = (
        "import os, signal, sys; from dpo.construct import command, shift; from model.prepare import parts\n"
        "parts.MIN_ROWS_PER_PART = 2; rows = shift.ShiftLosers.rows\n"
        "def killed_at_last(self, winner):\n"
        f"    if winner.winner_id == 'scene-{SCENES[-1].seed}': os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return rows(self, winner)\n"
        "shift.ShiftLosers.rows = killed_at_last; command.main(sys.argv[1:])"
    )
    folder = tmp_path / "data"
    flags = ["--latents", str(good_latents), "--output", str(folder), "--stages", *STAGES, "--signal_clips", "0"]
    result = subprocess.run([sys.executable, "-c", code, *flags], cwd=ROOT, capture_output=True, check=False)
    assert result.returncode == -signal.SIGKILL
    with pytest.raises(ValueError, match="holds no training dataset"):
        PairDataset.load(folder)
    assert construct(settings(good_latents, folder)).skipped == 8
    assert contents(folder) == contents(constructed)


def test_ray_makes_the_same_bytes(constructed, good_latents, tmp_path, ray_session):
    summary = construct(settings(good_latents, tmp_path / "ray", num_workers=1))
    assert (summary.done, summary.failed) == (10, 0)
    assert contents(tmp_path / "ray") == contents(constructed)


def test_seed_decides_the_losers(constructed, good_latents, tmp_path):
    construct(settings(good_latents, tmp_path / "other", seed=7))
    shifts = [load_from_disk(str(folder))["distortion_s"][:] for folder in (constructed, tmp_path / "other")]
    assert shifts[0] != shifts[1]
    with pytest.raises(ValueError, match="seed"):
        construct(settings(good_latents, constructed, seed=7))


def test_finished_run_is_left_alone_and_needs_no_torch(constructed, good_latents):
    before = contents(constructed)
    code = (
        "import sys; from dpo.construct.command import main; status = main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules and 'datasets' not in sys.modules; sys.exit(status)"
    )
    flags = ["--latents", str(good_latents), "--output", str(constructed), "--stages", *STAGES, "--signal_clips", "0"]
    result = subprocess.run([sys.executable, "-c", code, *flags], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "wanted 10, done 10 (skipped 10), failed 0" in result.stdout
    assert contents(constructed) == before


def test_guards_leave_pairs_out_and_count_them_by_reason(tmp_path, capsys):
    latents = prepare_latents(tmp_path / "clips", SCENES[:1], odd=("steady", "beat", "middle"))
    folder = tmp_path / "data"
    flags = ["--latents", str(latents), "--output", str(folder), "--stages", "1.2", "0.4", "--signal_clips", "0"]
    assert main(flags) == 0  # a pair that is left out is no failure
    failures = {row["pair_id"]: row for row in pq.read_table(folder / "failures.parquet").to_pylist()}
    assert failures["steady>stage-0"]["reason"] == failures["steady>stage-1"]["reason"] == STEADY
    assert failures["middle>stage-0"]["reason"] == NOTHING_LEFT
    assert failures["beat>stage-1"]["reason"] == failures["beat>stage-0"]["reason"] == ON_THE_BEAT  # 1.2 s: 3 periods
    assert abs(float(failures["beat>stage-1"]["distortion_s"])) == 0.4
    assert "middle>stage-1" in load_from_disk(str(folder))["pair_id"][:]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["left_out"] == {STEADY: 2, NOTHING_LEFT: 2, ON_THE_BEAT: 2}
    assert sum(summary["left_out"].values()) == summary["failed"]
    assert f"2 of the failed pairs were left out by rule: {STEADY}" in capsys.readouterr().out


def test_winners_of_prepared_pairs_are_taken_once(tmp_path):
    """Two pairs with the same winner give one clip; the lineage of the pairs is kept."""
    rows = make_rows(3)
    for row, pair_id in zip(rows, ("a/0>a/1", "a/0>a/2", "b/1>b/0"), strict=True):
        row["pair_id"] = pair_id
    winners = Winners(save_rows(tmp_path / "pairs", rows))
    assert [winners[n].winner_id for n in range(len(winners))] == ["a/0", "b/1"]
    expected = np.array(rows[0]["chosen_video_latents"], np.float16)
    assert np.array_equal(winners[0].latents["video"].ravel(), expected)
    assert winners[1].columns["prompt_id"] == "p2"


def test_lineage_of_ranked_winners_is_kept(constructed, good_latents, tmp_path):
    latents = shutil.copytree(good_latents, tmp_path / "latents")
    write_lineage(latents, LABELLED)
    construct(settings(latents, tmp_path / "data"))
    assert read_lineage(tmp_path / "data") == LABELLED.then(CONSTRUCTED)


def test_latents_of_another_model_are_refused(good_latents, tmp_path):
    other = save_pipeline(tmp_path / "other")
    with pytest.raises(ValueError, match=r"codecs and the text encoder of tiny, but .* has others"):
        construct(settings(good_latents, tmp_path / "data", model=str(other)))


def test_settings_that_make_no_pair_are_refused(good_latents, tmp_path):
    for changes, message in (
        ({"latents": ""}, "latents is empty"),
        ({"stages": []}, "stages is empty"),
        ({"stages": ["soon"]}, "'soon' is no range"),
        ({"regions": ["video"]}, "regions is .*'shift' does not use it"),
        ({"distortion": "regional"}, "stages is .*'regional' does not use it"),
        ({"signal_clips": 1}, "signal_clips is 1"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(settings(good_latents, tmp_path / "out"), **changes)
    with pytest.raises(ValueError, match="40 ms apart"):
        construct(settings(good_latents, tmp_path / "out", stages=["0.01"]))
    with pytest.raises(ValueError, match="holds no prepared clips or pairs"):
        construct(settings(tmp_path, tmp_path / "out"))


def test_dry_run_prints_shifts_in_steps_and_writes_nothing(good_latents, tmp_path, capsys):
    flags = ["--latents", str(good_latents), "--output", str(tmp_path / "out"), "--stages", *STAGES, "--dry_run"]
    assert main(flags) == 0
    out = capsys.readouterr().out
    assert "5 clips give at most 10 pairs" in out
    assert "stage 0: sound 0.16-0.32 s early or late, 4 to 8 steps of 40 ms" in out
    assert "wanted 10, done 0, left 10" in out
    assert not (tmp_path / "out").exists()


def test_pairs_can_be_looked_at(constructed, good_latents):
    construct(replace(settings(good_latents, constructed), check=1))
    videos = sorted((constructed / "check").glob("*.mp4"))
    assert {video.stem.rsplit("-", 1)[1] for video in videos} == {"chosen", "rejected"}
    assert probe(videos[0]).num_frames == 33


def test_without_the_signal_test_the_dataset_says_so(constructed):
    assert read_verdicts(constructed) == {"video": "untested", "audio": "untested"}


@pytest.mark.parametrize(("recipe", "model"), [("tiny", "tiny"), ("javisdit_pp", "javisdit_pp")])
def test_recipes_plan_their_pairs_without_weights(good_latents, tmp_path, capsys, recipe, model):
    flags = ["--config", str(ROOT / "recipes" / recipe / "construct.yaml"), "--model", model, "--dry_run"]
    assert main([*flags, "--latents", str(good_latents), "--output", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    for stage, steps in enumerate(("6 to 12", "4 to 8", "2 to 4")):
        assert re.search(rf"stage {stage}: .* {steps} steps of 40 ms", out)
    assert "5 clips give at most 15 pairs" in out
    assert not (tmp_path / "out").exists()


def test_recipe_of_the_training_goes_through_the_stages_without_the_mark(constructed, tmp_path, capsys):
    write_verdicts(constructed, {"video": "signal", "audio": "mark"}, {})
    flags = ["--config", str(ROOT / "recipes" / "tiny" / "dpo_constructed.yaml"), "--dry_run", "--use_cpu", "true"]
    assert train([*flags, "--dataset", str(constructed), "--output_dir", str(tmp_path / "out")]) == 0
    assert "10 pairs in 1 shape(s), 2 steps an epoch, 30 steps" in capsys.readouterr().out
    assert train([*flags, "--dataset", str(constructed), "--output_dir", str(tmp_path), "--beta_audio", "9"]) == 2
    assert "beta_audio is above 0" in capsys.readouterr().err
    write_verdicts(constructed, {"video": "untested", "audio": "untested"}, {"distortion": "shift"})
