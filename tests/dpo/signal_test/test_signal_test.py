"""The signal test on the tiny preset: the picture's error carries sync, the sound's the mark of the shift."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch

from dpo.construct.command import construct
from dpo.construct.config import ConstructConfig
from dpo.data.dataset import PairDataset
from dpo.data.verdict import read_verdicts
from dpo.signal_test.command import main
from dpo.signal_test.measure import Errors, measure_errors, with_partners
from dpo.signal_test.table import Interval, SignalRow, sentences, signal_rows, verdict, verdicts
from dpo.signal_test.trials import comparable, spread, trials_of_dataset, unrelated
from tests.dpo.dpo_helpers import make_dataset, make_rows, tiny_model


@pytest.fixture(scope="module")
def constructed(good_latents, tmp_path_factory):
    """Pairs with shifts of 160 to 320 ms, and the verdict that the command stores."""
    folder = tmp_path_factory.mktemp("signal") / "data"
    construct(ConstructConfig(latents=str(good_latents), output=str(folder), stages=["0.16-0.32"], signal_clips=4))
    return folder


def test_verdict_of_the_tiny_preset_is_stored_beside_the_pairs(constructed):
    assert read_verdicts(constructed) == {"video": "signal", "audio": "mark"}
    content = json.loads((constructed / "signal.json").read_text())
    assert (content["num_clips"], content["num_draws"]) == (4, 8)
    video, audio = content["sentences"]
    assert video.startswith("video: carries the sync signal.")
    assert "carries the mark of the distortion, not sync" in audio
    assert audio.endswith("set beta_audio 0.")
    with (constructed / "signal.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    overall = {row["modality"]: row for row in rows if row["sigma"] == "all"}
    assert float(overall["video"]["own"]) > 0.04
    assert abs(float(overall["audio"]["signal"])) < 0.1 * float(overall["audio"]["own"])
    bins = [row for row in rows if row["modality"] == "video" and row["sigma"] != "all"]
    assert len(bins) > 1
    assert sum(int(row["num_draws"]) for row in bins) == int(overall["video"]["num_draws"]) == 32


def test_a_shift_of_zero_has_exactly_no_signal(good_latents, tmp_path, capsys):
    flags = ["--model", "tiny", "--latents", str(good_latents), "--output", str(tmp_path / "out"), "--clips", "2"]
    assert main([*flags, "--draws", "2", "--shifts", "0", "0.32"]) == 0
    with (tmp_path / "out" / "signal.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["sigma"] == "all"]
    unmoved = [row for row in rows if row["distortion"] == "+0 ms"]
    assert len(unmoved) == 2
    for row in unmoved:
        assert [float(row[name]) for name in ("own", "unrelated", "signal", "own_low", "own_high")] == [0.0] * 5
    assert all(float(row["own"]) != 0 for row in rows if row["distortion"] == "+320 ms")
    assert "+320 ms" in capsys.readouterr().out


def one_sided(rows=None):
    """Pairs whose members differ in sound alone."""
    return [row | {"rejected_video_latents": row["chosen_video_latents"]} for row in rows or make_rows(4)]


def test_unrelated_partner_replaces_what_both_members_share():
    trials = trials_of_dataset(make_dataset(one_sided()), 4)
    other = next(unrelated(trials, 0))
    assert other.clip_id != trials[0].clip_id
    batch = with_partners(trials[0], trials[0].rejected, other)
    assert torch.equal(batch["audio"][0], batch["audio"][1])
    assert torch.equal(batch["audio"][0], trials[0].rejected["audio"])
    assert torch.equal(batch["video"][0], trials[0].chosen["video"])
    assert torch.equal(batch["video"][1], other.chosen["video"])


def test_pairs_that_differ_in_both_modalities_are_refused():
    trials = trials_of_dataset(make_dataset(make_rows(2)), 2)
    with pytest.raises(ValueError, match="differ in video and audio"):
        measure_errors(tiny_model(), trials, 1, 5.0, 0)


def test_errors_are_those_of_the_network_at_the_training_draws():
    """Written out for one pair: the same noise, timestep and caption as in training, and one draw per epoch."""
    from dpo.data.dataset import PairCollator
    from dpo.train.trainer import noisy_pairs
    from model.data.batches import RowKey

    dataset, network = make_dataset(one_sided(make_rows(2))), tiny_model()
    errors = measure_errors(network, trials_of_dataset(dataset, 2), 2, 5.0, seed=3)
    pair = dataset[RowKey(1, 1)]
    batch = PairCollator(3, dataset.negative_text, text_dropout=0.0, text_len=network.config.text_len)([pair])
    noisy, target = noisy_pairs(batch)
    with torch.no_grad():
        predicted = network(**noisy)
    row = 3  # second pair, second draw
    assert errors.sigma[row] == pytest.approx(batch["timestep"].item() / 1000)
    for name in ("video", "audio"):
        winner, loser = (getattr(predicted, name) - target[name]).square().flatten(1).mean(1).tolist()
        assert errors.winner[name][row, 0] == pytest.approx(winner, rel=1e-4)
        assert errors.loser[name][row, 0] == pytest.approx(loser, rel=1e-4)


def made_errors(own, unrelated_difference, num_clips=8):
    """Errors in which the video differs by `own` and by `unrelated_difference`, plus small noise that all share."""
    noise = np.random.default_rng(0).normal(scale=0.01, size=(num_clips, 1))
    zero = np.zeros((num_clips, 2))
    difference = np.array([[own, unrelated_difference]]) + (noise if own or unrelated_difference else 0)
    winner, loser = {"video": zero, "audio": zero}, {"video": zero + difference, "audio": zero}
    return Errors(np.array(["x"] * num_clips), np.arange(num_clips), np.full(num_clips, 0.5), winner, loser)


@pytest.mark.parametrize(
    ("own", "unrelated_difference", "expected"),
    [(0.1, 0.0, "signal"), (0.1, 0.03, "signal"), (0.1, 0.1, "mark"), (0.1, 0.08, "mark"), (0.0, 0.0, "none")],
)
def test_verdicts(own, unrelated_difference, expected):
    rows = signal_rows(made_errors(own, unrelated_difference), seed=0)
    assert verdicts(rows) == {"video": expected, "audio": "none"}
    assert any(("signal" in text) == (expected == "signal") for text in sentences(rows) if text.startswith("video"))
    assert [row.sigma for row in rows if row.modality == "video"] == ["all", "0.4-0.6"]


def test_a_difference_within_its_interval_is_no_mark():
    unclear = Interval(0.01, -0.02, 0.04)
    assert verdict(SignalRow("all", "video", "all", 8, 1.0, 1.0, unclear, unclear, unclear)) == "none"


def test_trials_are_spread_over_the_rows():
    assert spread(100, 3) == [0, 50, 99]
    assert spread(2, 16) == [0, 1]


def test_clips_without_another_of_their_size_are_left_out():
    """The test of clips of several sizes does not fail because one size has a single clip."""
    rows = [*one_sided(make_rows(2)), *one_sided(make_rows(1, first_id=2, video_shape=(4, 3, 8, 4)))]
    trials = trials_of_dataset(make_dataset(rows), 3)
    assert [trial.clip_id for trial in comparable(trials)] == ["p0", "p1"]
    assert set(measure_errors(tiny_model(), trials, 1, 5.0, 0).clips) == {0, 1}
    with pytest.raises(ValueError, match="No two clips of the signal test have the same size"):
        comparable(trials[1:])


def test_mistakes_are_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--model", "tiny"])
    assert "give one of them" in capsys.readouterr().err
    assert main(["--model", "tiny", "--dataset", str(tmp_path)]) == 2
    assert "holds no training dataset" in capsys.readouterr().err


def test_a_dataset_is_tested_again_with_another_model(constructed, capsys):
    """The verdict beside the pairs is replaced, and says from which model it is."""
    before = (constructed / "signal.json").read_text()
    assert main(["--model", "tiny", "--dataset", str(constructed), "--clips", "2", "--draws", "1"]) == 0
    assert json.loads((constructed / "signal.json").read_text())["num_clips"] == 2
    (constructed / "signal.json").write_text(before)
    assert "stage 0" not in capsys.readouterr().out  # one stage alone is the row of all
    assert len(PairDataset.load(constructed)) == 5
