"""`python -m pipeline.rounds` on a random model of a few thousand weights, and a reward of colour and noise."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file

from core.prompts import read_prompts
from pipeline.rounds.command import main, round_prompts
from pipeline.rounds.config import RoundsConfig
from tests.dpo.dpo_pipeline import save_pipeline

ROOT = Path(__file__).parents[3]
NAMES = ("margin video", "accuracy audio", "held-out", "95 % interval", "overall")
SECTIONS = {
    "preferences": {
        "rewards": ["tests.pipeline.fakes:FakeReward"],
        "pairs_per_prompt": 2,
        "min_modality_margins": {"audio": None, "audio_video": None},
    },
    "training": {"max_steps": 2, "warmup_steps": 0, "learning_rate": 1.0e-2, "per_device_train_batch_size": 2}
    | {"lora_r": 2, "save_steps": 1, "logging_steps": 1, "use_cpu": True, "disable_tqdm": True},
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """(model, prompts, held-out prompts)"""
    folder = tmp_path_factory.mktemp("inputs")
    for name, count in (("prompts", 4), ("held_out", 2)):
        rows = [{"prompt_id": f"{name}{i}", "prompt": "a red ball"} for i in range(count)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return save_pipeline(folder / "model"), folder / "prompts.jsonl", folder / "held_out.jsonl"


def flags(inputs, folder, *more, **changes):
    """The command line, its sections in a YAML file."""
    model, prompts, held_out = inputs
    path = folder.parent / f"{folder.name}.yaml"
    path.write_text(yaml.safe_dump(SECTIONS | changes))
    paths = [
        "--prompts",
        str(prompts),
        "--output_dir",
        str(folder),
        *(["--held_out", str(held_out)] if held_out else []),
    ]
    return ["--config", str(path), "--model", str(model), *paths, *more]


def weights(folder, number):
    return load_file(folder / f"round-{number}" / "model" / "adapter_model.safetensors")


def candidate_seeds(folder):
    return pd.read_parquet(folder / "candidates" / "candidates.parquet").seed.tolist()


def times(folder):
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != "rounds.json"}


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory, ray_session):
    """Two rounds, the second asked for after the first."""
    folder = tmp_path_factory.mktemp("rounds") / "run"
    for count in ("1", "2"):
        assert main(flags(inputs, folder, "--rounds", count)) == 0
    return folder


def test_each_round_samples_with_and_trains_the_last_model(finished, inputs):
    for number, base in ((1, inputs[0]), (2, finished / "round-1" / "model")):
        folder = finished / f"round-{number}"
        adapter = json.loads((folder / "model" / "adapter_config.json").read_text())
        assert adapter["base_model_name_or_path"] == str(base)
        assert yaml.safe_load((folder / "preferences.yaml").read_text())["model"] == str(base)
    seeds = [
        pd.read_parquet(finished / f"round-{n}" / "preferences/candidates/candidates.parquet").seed for n in (1, 2)
    ]
    assert len(set(seeds[0]) | set(seeds[1])) == len(seeds[0]) + len(seeds[1])
    first, second = (weights(finished, number) for number in (1, 2))
    assert any(not torch.equal(first[name], second[name]) for name in first)
    sampled = [candidate_seeds(finished / name / "evaluation") for name in ("initial", "round-1", "round-2")]
    assert sampled[0] == sampled[1] == sampled[2]  # held-out prompts: the same noise for every model


def test_finished_rounds_are_kept_and_listed_in_a_table(finished, inputs, capsys):
    before = times(finished)
    assert main(flags(inputs, finished, "--rounds", "2")) == 0
    out = capsys.readouterr().out
    assert "round 1: finished before" in out
    for text in NAMES:
        assert text in out
    figures = json.loads((finished / "round-2" / "round.json").read_text())
    assert figures["num_prompts"] == 4
    assert 4 <= figures["training"]["pairs"] <= 8  # two pairs of a prompt at most
    assert figures["comparison"][0]["num_samples"] == 2
    assert {path: when for path, when in times(finished).items() if path in before} == before


def test_a_killed_run_goes_on_and_ends_in_the_same_models(finished, inputs, tmp_path):
    """Killed as soon as the second round has trained a step."""
    folder, inputs = tmp_path / "run", (*inputs[:2], None)
    shutil.copytree(finished / "round-1", folder / "round-1")
    shutil.copy(finished / "rounds.json", folder)
    command = [sys.executable, "-m", "pipeline.rounds", *flags(inputs, folder, "--rounds", "2")]
    threads = str(torch.get_num_threads())  # as in this process: sums round as their threads share them
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": threads}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 240
        while not list((folder / "round-2").glob("model/checkpoint-1/trainer_state.json")):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (folder / "round-2" / "round.json").exists()
    assert main(flags(inputs, folder, "--rounds", "2")) == 0
    killed, whole = (weights(run, 2) for run in (folder, finished))
    assert killed.keys() == whole.keys()
    for name, value in whole.items():
        assert torch.equal(killed[name], value)


def test_rounds_of_nft_train_on_all_candidates_and_replay_earlier_ones(inputs, tmp_path, capsys, ray_session):
    preferences = {"rewards": SECTIONS["preferences"]["rewards"], "num_candidates": 4}
    training = SECTIONS["training"] | {"per_device_train_batch_size": 4, "shared_draws": True}
    flagged = flags(
        (*inputs[:2], None),
        tmp_path / "run",
        *("--objective", "nft", "--rounds", "2", "--prompts_per_round", "2", "--replay_share", "0.5"),
        preferences=preferences,
        training=training,
    )
    assert main(flagged) == 0
    out = capsys.readouterr().out
    assert "failed scores" in out
    assert "distance video" in out
    prompts = [set(read_prompts(tmp_path / f"run/round-{n}/prompts.parquet")["prompt_id"].to_pylist()) for n in (1, 2)]
    assert not prompts[0] & prompts[1]
    settings = yaml.safe_load((tmp_path / "run/round-2/model/config.yaml").read_text())
    assert (settings["objective"], settings["replay_share"]) == ("nft", 0.5)
    figures = json.loads((tmp_path / "run/round-2/round.json").read_text())
    assert figures["training"]["candidates"] == 8
    assert figures["training"]["distance video"] > 0
    first, second = (weights(tmp_path / "run", number) for number in (1, 2))
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_rounds_divide_the_prompts_in_one_shuffled_order(inputs, tmp_path):
    config = RoundsConfig(prompts=inputs[1], output_dir=tmp_path, prompts_per_round=2, seed=3)
    table = read_prompts(inputs[1])
    rounds = [round_prompts(config, table, number)["prompt_id"].to_pylist() for number in (1, 2)]
    assert sorted(rounds[0] + rounds[1]) == [f"prompts{i}" for i in range(4)]
    assert rounds == [round_prompts(config, table, number)["prompt_id"].to_pylist() for number in (1, 2)]


def test_more_rounds_than_prompts_allow_are_refused(inputs, tmp_path, capsys):
    assert main(flags(inputs, tmp_path / "run", "--rounds", "3", "--prompts_per_round", "2")) == 2
    assert "need 6 prompts, because none is used twice" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_dry_run_prints_every_round_and_writes_nothing(inputs, tmp_path, capsys):
    assert main(flags(inputs, tmp_path / "run", "--rounds", "2", "--dry_run")) == 0
    out = capsys.readouterr().out
    assert f"round 1: 4 prompts, run seed 0, from {inputs[0]}" in out
    assert f"round 2: 4 prompts, run seed 1, from {tmp_path / 'run' / 'round-1' / 'model'}" in out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("section", "value", "message"),
    [
        ("training", {"model": "tiny"}, "training sets model"),
        ("training", {"max_stebs": 1}, "max_steps"),
        ("training", {"adapter": "continue", "lora_r": 64}, "is no adapter folder"),
        ("preparation", {"num_worker": 1}, "num_workers"),
        ("preferences", {"strategy": "best"}, "strategy"),
        ("evaluation", {"num_candidates": 0}, "num_candidates is 0"),
    ],
)
def test_mistakes_in_any_section_are_found_before_any_work(inputs, tmp_path, capsys, section, value, message):
    changes = {section: SECTIONS.get(section, {}) | value}
    try:
        status = main(flags(inputs, tmp_path / "run", **changes))
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_changed_settings_are_refused_by_name(finished, inputs, capsys):
    training = SECTIONS["training"] | {"beta_video": 5.0, "logging_steps": 2}
    assert main(flags(inputs, finished, "--rounds", "3", training=training)) == 2
    message = capsys.readouterr().err
    assert "training.beta_video (None -> 5.0)" in message
    assert "logging_steps" not in message  # changes no model
    assert not (finished / "round-3").exists()


def test_a_round_without_pairs_stops_and_says_so(finished, inputs, tmp_path, capsys):
    for name in ("candidates", "scores"):
        shutil.copytree(finished / f"round-1/preferences/{name}", tmp_path / f"run/round-1/preferences/{name}")
    preferences = SECTIONS["preferences"] | {"min_margin": 100.0}
    assert main(flags((*inputs[:2], None), tmp_path / "run", "--rounds", "1", preferences=preferences)) == 2
    assert "has no pairs, so there is nothing to train on" in capsys.readouterr().err
    assert not (tmp_path / "run" / "round-1" / "model").exists()
