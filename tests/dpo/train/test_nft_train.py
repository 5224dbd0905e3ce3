"""The command with objective nft: settings, plan, lineage, resume, finished runs and the recipes."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from core.lineage import UNTRAINED, write_lineage
from dpo.prepare.command import prepare
from dpo.prepare.config import PrepareConfig
from dpo.train.command import main, parse
from dpo.train.config import NFTConfig, TrainConfig
from model.javisdit.codecs.audio_lengths import training_mel_frames
from model.javisdit.pipeline import JointAVPipeline
from model.lineage import model_lineage
from model.train.arguments import resolved_settings
from model.train.callbacks import read_log
from tests.dpo.dpo_helpers import make_group_rows, save_groups
from tests.dpo.dpo_pipeline import save_pipeline, save_run

RECIPES = Path(__file__).parents[3] / "recipes"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return (model folder, folder of groups prepared from a run)."""
    root = tmp_path_factory.mktemp("train")
    model = save_pipeline(root / "model")
    write_lineage(model, UNTRAINED)
    run = save_run(root / "run", model, sizes=(4, 4, 4))
    prepare(PrepareConfig(groups=str(run), model=str(model), output=str(root / "groups")))
    return model, root / "groups"


def flags(data, output, **changes):
    values = {
        "objective": "nft",
        "model": data[0],
        "dataset": data[1],
        "output_dir": output,
        "max_steps": 3,
        "learning_rate": 1e-3,
        "warmup_steps": 0,
        "logging_steps": 1,
        "save_steps": 1,
        "save_total_limit": 5,
        "per_device_train_batch_size": 4,
        "shared_draws": True,
        "lora_r": 4,
        "use_cpu": True,
        "disable_tqdm": True,
    } | changes
    return [part for name, value in values.items() for part in (f"--{name}", str(value))]


def losses(folder):
    return [line["loss"] for line in read_log(folder) if "loss" in line]


def test_groups_of_a_run_train_an_adapter_that_loads(data, tmp_path):
    argv = flags(data, tmp_path / "out", eval_dataset=data[1], eval_strategy="steps", eval_steps=3)
    assert main(argv) == 0
    tuned, base = (JointAVPipeline.from_pretrained(folder) for folder in (tmp_path / "out", data[0]))
    latents = [pipe(["a red ball"], seeds=[1], output="latents")[0].audio for pipe in (base, tuned)]
    assert not latents[0].equal(latents[1])
    assert any("eval_probe/video" in line for line in read_log(tmp_path / "out"))
    recorded = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert (recorded["objective"], recorded["adv_clip"]) == ("nft", 1.0)
    assert "beta_video" not in recorded


def test_lineage_names_the_rewards_that_trained_and_no_others(data, tmp_path):
    assert main(flags(data, tmp_path / "ranked", max_steps=1)) == 0
    assert main([*flags(data, tmp_path / "mixed", max_steps=1), "--reward_mix", "{loudness: 1, desync: 0.5}"]) == 0

    def metrics(folder):
        [training] = model_lineage(tmp_path / folder).trainings
        return {use.name: use.metrics for use in training.rewards}

    assert metrics("ranked") == {"tiny": ("visual_quality", "audio_quality", "desync")}
    assert metrics("mixed") == {"tiny": ("desync",), "own": ("loudness",)}


def test_resume_latest_goes_on_with_the_same_losses_and_weights(data, tmp_path):
    assert main(flags(data, tmp_path / "whole")) == 0
    parts = tmp_path / "parts"
    shutil.copytree(tmp_path / "whole", parts)
    (parts / "summary.json").unlink()  # like a run that was killed after step 2, while writing checkpoint 3
    (parts / "checkpoint-3" / "trainer_state.json").unlink()
    assert main([*flags(data, parts), "--resume_from_checkpoint", "latest"]) == 0
    assert losses(parts) == losses(tmp_path / "whole")
    whole, resumed = (JointAVPipeline.from_pretrained(folder).model_id for folder in (tmp_path / "whole", parts))
    assert whole == resumed


def test_finished_run_returns_at_once_and_other_settings_are_refused(data, tmp_path, capsys):
    command = flags(data, tmp_path / "out", max_steps=1)
    assert main(command) == 0
    code = (
        "import sys; from dpo.train.command import main; status = main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules; sys.exit(status)"
    )
    result = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=False)
    assert "train: wanted 1, done 1 (skipped 1), failed 0" in result.stdout
    assert main(flags(data, tmp_path / "out", max_steps=1, adv_clip=5)) == 2
    assert "adv_clip (1.0 -> 5.0)" in capsys.readouterr().err


def test_dry_run_prints_groups_ties_failures_and_batches(data, tmp_path, capsys):
    assert main([*flags(data, tmp_path / "out"), "--dry_run"]) == 0
    out = capsys.readouterr().out
    assert "12 candidates in 1 shape(s), 3 steps an epoch, 3 steps" in out
    assert "groups: 3 of 4 candidates" in out
    assert re.search(r"visual_quality +video 1 +0 failed scores +0 groups of equal scores", out)
    assert re.search(r"desync +video 1, audio 1 ", out)
    assert "loudness" not in out
    assert "4 candidates of 68 tokens = 272 tokens per batch" in out
    assert "reference: the network without its adapter" in out
    assert not (tmp_path / "out").exists()


def test_mistakes_in_groups_and_rewards_are_named(data, tmp_path, capsys):
    for changes, message in (
        ({"per_device_train_batch_size": 3}, "groups have 4 candidates"),
        ({"reward_mix": "{mood: 1}"}, "reward_mix names mood, but"),
    ):
        for dry_run in ([], ["--dry_run"]):
            assert main([*flags(data, tmp_path / "out", **changes), *dry_run]) == 2
            assert message in capsys.readouterr().err
    assert main(flags(data, tmp_path / "out", objective="dpo")[: -2 * 6] + ["--use_cpu", "true"]) == 2
    assert "no training dataset of pairs (is it the pairs dataset, or one of groups" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_help_has_a_section_per_objective(capsys):
    assert main(["--help"]) == 0
    common, dpo, nft = re.split(r"With objective \w+:", capsys.readouterr().out)
    assert "--objective " in common
    assert "--beta_video " in dpo
    for name in ("nft_beta", "adv_clip", "routing", "reward_mix", "shared_draws", "shuffle_advantages"):
        assert f"--{name} " in nft


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": "ppo"}, "objective 'ppo' is unknown: choose one of dpo, nft"),
        ({"beta_video": 10.0}, "beta_video is 10.0, but belongs to the objective dpo"),
        ({"objective": "dpo", "adv_clip": 5.0}, "adv_clip is 5.0, but belongs to the objective nft"),
        ({"precompute_ref_errors": True}, "needs the old policy's predictions"),
        ({"trainable": "full", "sync_ref_model": True}, "sync_ref_model is True, but belongs to"),
        ({"nft_beta": 0.0}, "nft_beta is 0.0, and the loss divides by it"),
        ({"adv_clip": math.nan}, "adv_clip is nan"),
        ({"nft_form": "other"}, "choose one of plain, adaptive"),
        ({"adv_mode": "some"}, "adv_mode 'some' is unknown"),
        ({"kl_weight_audio": -1.0}, "kl_weight_audio is -1.0"),
        ({"routing": "both"}, "routing 'both' is unknown"),
        ({"routing": {"desync": {"sound": 1}}}, "routing of desync is"),
        ({"routing": {"desync": {"audio": "much"}}}, "A weight of a reward is 'much'"),
        ({"routing": {"desync": {"audio": 1}}, "reward_mix": {"desync": 1}}, "both give weights"),
        ({"reward_mix": {"desync": math.inf}}, "A weight of a reward is inf"),
    ],
)
def test_settings_out_of_range_or_of_the_other_objective_are_refused(tmp_path, change, message):
    values = {"output_dir": str(tmp_path), "model": "tiny", "dataset": "data", "objective": "nft"}
    with pytest.raises(ValueError, match=message):
        TrainConfig(**(values | change))


@pytest.mark.parametrize("routing", ["summed", "{desync: {video: 0.5, audio: 1}}"])
def test_settings_read_back_from_flags_and_yaml(tmp_path, routing):
    argv = ["--config", str(RECIPES / "tiny" / "nft.yaml"), "--routing", routing, "--report_to", "tensorboard"]
    config = parse(argv)
    assert config.routing == (routing if routing == "summed" else {"desync": {"video": 0.5, "audio": 1}})
    path = tmp_path / "resolved.yaml"
    path.write_text(yaml.safe_dump(resolved_settings(config)))
    assert resolved_settings(parse(["--config", str(path)])) == resolved_settings(config)


def test_tiny_recipe_trains_on_groups_of_eight(tmp_path, capsys):
    config = parse(["--config", str(RECIPES / "tiny" / "nft.yaml")])
    assert (config.objective, config.shared_draws, config.per_device_train_batch_size) == ("nft", True, 16)
    rows = full_size_rows({(33, 64, 64): 8}, text_dim=64, channels=(8, 8))
    groups = save_groups(tmp_path / "groups", rows, text_len=40)
    argv = ["--config", str(RECIPES / "tiny" / "nft.yaml"), "--dataset", str(groups), "--dry_run"]
    assert main([*argv, "--output_dir", str(tmp_path / "out")]) == 0
    assert re.search(r"64x64 33 frames: 16 candidates of [\d,]+ tokens", capsys.readouterr().out)


def full_size_rows(shapes, text_dim=4096, channels=(16, 8)):
    """Return a group of candidates per (frames, height, width), with zeros as latents."""
    rows = []
    for number, ((num_frames, height, width), size) in enumerate(shapes.items()):
        video = [channels[0], (num_frames - 1) // 4 + 1, height // 8, width // 8]
        audio = [channels[1], training_mel_frames(num_frames / 16) // 4, 16]
        changes = {"num_frames": num_frames, "height": height, "width": width, "text_embeds": [0.0] * text_dim}
        changes |= {"text_length": 1, "text_dim": text_dim}
        changes |= {"video_latents_shape": video, "audio_latents_shape": audio}
        changes |= {"video_latents": [0.0] * math.prod(video), "audio_latents": [0.0] * math.prod(audio)}
        rows += [row | changes for row in make_group_rows(1, size, seed=number, first_id=number)]
    return rows


def test_plan_of_the_full_size_recipe_needs_no_weights(tmp_path, capsys):
    groups = save_groups(tmp_path / "groups", full_size_rows({(65, 240, 432): 8}), text_len=512)
    argv = ["--config", str(RECIPES / "javisdit_pp" / "nft.yaml"), "--model", "javisdit_pp", "--dry_run"]
    assert main([*argv, "--dataset", str(groups), "--output_dir", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert re.search(r"240x432 65 frames: 1 candidates of [\d,]+ tokens", out)
    assert "trains 63,897,600 of 2,316,286,560 parameters (lora)" in out
    assert "groups: 1 of 8 candidates" in out
    assert "on this CPU" not in out
    assert not (tmp_path / "out").exists()


def test_defaults_are_for_one_round_on_stored_candidates(tmp_path):
    config = NFTConfig(output_dir=str(tmp_path))
    assert (config.nft_beta, config.adv_clip, config.nft_form, config.nft_prediction) == (1.0, 1.0, "plain", "velocity")
    assert (config.adv_scale, config.adv_mode, config.routing, config.reward_mix) == ("table", "all", "routed", None)
    assert config.kl_weights == {"video": 0.0, "audio": 0.0}
    assert json.loads(json.dumps(config.modality_weights)) == {"video": 1.0, "audio": 1.0}
