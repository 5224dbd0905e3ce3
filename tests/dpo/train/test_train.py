from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from datasets import load_from_disk

from core.lineage import UNKNOWN, UNTRAINED, Lineage, PreferenceTraining, RewardUse, write_lineage
from dpo.prepare.command import PrepareConfig, prepare
from dpo.train.command import main, parse
from dpo.train.config import AVDPOConfig, TrainConfig
from model.javisdit.codecs.audio_lengths import training_mel_frames
from model.javisdit.pipeline import JointAVPipeline
from model.lineage import model_lineage
from model.train.arguments import resolved_settings
from model.train.callbacks import read_log
from model.train.run_state import latest_checkpoint
from tests.dpo.dpo_helpers import make_rows, save_rows
from tests.dpo.dpo_pipeline import save_pairs, save_pipeline
from tests.locks import held_by_another_process

ROOT = Path(__file__).parents[3]
RECIPE = ROOT / "recipes" / "tiny" / "dpo.yaml"
PUBLISHED = RECIPE.parents[1] / "javisdit_pp" / "dpo.yaml"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return (model folder, training dataset folder)."""
    root = tmp_path_factory.mktemp("train")
    model = save_pipeline(root / "model")
    pairs = save_pairs(root / "pairs", model, num_pairs=4, ground_truth=False)
    prepare(PrepareConfig(pairs=str(pairs), model=str(model), output=str(root / "data")))
    return model, root / "data"


def flags(data, output, **changes):
    model, dataset = data
    values = {
        "model": model,
        "dataset": dataset,
        "output_dir": output,
        "max_steps": 3,
        "learning_rate": 1e-3,
        "warmup_steps": 0,
        "logging_steps": 1,
        "save_steps": 1,
        "save_total_limit": 5,
        "per_device_train_batch_size": 2,
        "lora_r": 4,
        "use_cpu": True,
        "disable_tqdm": True,
    } | changes
    if values.get("trainable") == "full":
        del values["lora_r"]
    return [part for name, value in values.items() for part in (f"--{name}", str(value))]


def losses(folder):
    return [line["loss"] for line in read_log(folder) if "loss" in line]


def test_trained_adapter_loads_from_anywhere_and_changes_its_clips(data, tmp_path, monkeypatch):
    monkeypatch.chdir(data[0].parent)
    assert main(flags((Path(data[0].name), *data[1:]), tmp_path / "out", learning_rate=1e-2)) == 0
    monkeypatch.chdir(tmp_path)
    tuned = JointAVPipeline.from_pretrained(tmp_path / "out")
    base = JointAVPipeline.from_pretrained(data[0])
    latents = [pipe(["a red ball"], seeds=[1], output="latents")[0] for pipe in (base, tuned)]
    assert not torch.equal(latents[0].video, latents[1].video)
    assert not torch.equal(latents[0].audio, latents[1].audio)
    adapter = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == str(data[0])  # the flag gave it relative to the working folder
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["stage"], summary["wanted"], summary["done"], summary["failed"]) == ("train", 3, 3, 0)
    assert model_lineage(tmp_path / "out") == UNKNOWN  # neither the model nor the pairs record what selected them


def test_lineage_of_every_training_outlives_the_folders_before(data, tmp_path):
    (tmp_path / "work").mkdir()
    model, dataset = (shutil.copytree(path, tmp_path / "work" / path.name) for path in data)
    write_lineage(model, UNTRAINED)
    first, second = (
        Lineage((PreferenceTraining("rewards", (RewardUse(name, "1", ("ib_av",)),)),)) for name in ("first", "second")
    )
    write_lineage(dataset, first)
    assert main(flags((model, dataset), tmp_path / "work" / "one", max_steps=1)) == 0
    write_lineage(dataset, second)
    settings = {"max_steps": 1, "ema_decay": 0.5, "save_steps": 1}
    assert main(flags((tmp_path / "work" / "one", dataset), tmp_path / "two", **settings)) == 0
    shutil.rmtree(tmp_path / "work")
    for part in (".", "ema", "checkpoint-1"):
        assert model_lineage(tmp_path / "two" / part) == first.then(second)


def test_finished_run_returns_at_once_without_torch(data, tmp_path):
    command = flags(data, tmp_path / "out", max_steps=1)
    assert main(command) == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    code = (
        "import sys; from dpo.train.command import main; status = main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules; sys.exit(status)"
    )
    result = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "train: wanted 1, done 1 (skipped 1), failed 0" in result.stdout
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_same_settings_in_other_words_are_finished_as_well(data, tmp_path, capsys):
    assert main(flags(data, tmp_path / "out", max_steps=1)) == 0
    assert main([*flags(data, tmp_path / "out", max_steps=1, logging_steps=5), "--beta_video", "3000"]) == 0
    assert "(skipped 1)" in capsys.readouterr().out.splitlines()[-1]


def test_changed_settings_in_a_used_folder_are_refused_by_name(data, tmp_path, capsys):
    assert main(flags(data, tmp_path / "out", max_steps=1)) == 0
    assert main(flags(data, tmp_path / "out", max_steps=1, beta_audio=10)) == 2
    message = capsys.readouterr().err
    assert "beta_audio (1000.0 -> 10.0)" in message
    assert "Traceback" not in message


def test_resume_latest_goes_on_with_the_same_losses(data, tmp_path):
    assert main(flags(data, tmp_path / "whole")) == 0
    parts = tmp_path / "parts"
    shutil.copytree(tmp_path / "whole", parts)
    (parts / "summary.json").unlink()  # like a run that was killed after step 2, while writing checkpoint 3
    (parts / "checkpoint-3" / "trainer_state.json").unlink()
    assert latest_checkpoint(parts).name == "checkpoint-2"
    assert main([*flags(data, parts), "--resume_from_checkpoint", "latest"]) == 0
    assert losses(parts) == losses(tmp_path / "whole")
    assert json.loads((parts / "summary.json").read_text())["skipped"] == 2
    whole, resumed = (JointAVPipeline.from_pretrained(folder).model_id for folder in (tmp_path / "whole", parts))
    assert whole == resumed


def test_resume_latest_without_a_checkpoint_starts_from_the_beginning(data, tmp_path):
    assert main([*flags(data, tmp_path / "out", max_steps=1), "--resume_from_checkpoint", "latest"]) == 0


def test_a_second_run_is_refused(data, tmp_path, capsys):
    with held_by_another_process(tmp_path / "out") as holder:
        assert main(flags(data, tmp_path / "out")) == 2
    assert f"is in use by another run: process {holder.pid} on " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_dry_run_prints_the_plan_and_writes_nothing(data, tmp_path, capsys):
    assert main([*flags(data, tmp_path / "out"), "--dry_run"]) == 0
    out = capsys.readouterr().out
    assert "beta_video: 3000.0" in out
    assert "4 pairs in 1 shape(s), 2 steps an epoch, 3 steps" in out
    assert "2 pairs of 136 tokens = 272 tokens per batch" in out
    assert re.search(r"trains 6,\d+ of \d+,\d+ parameters \(lora\); reference: the network without its adapter", out)
    assert "memory per device without sharding" in out
    assert re.search(r"TFLOP a step .* on this CPU \S+ s a step", out)
    assert not (tmp_path / "out").exists()


def test_model_that_does_not_fit_the_data_is_refused(data, tmp_path, capsys):
    folder = tmp_path / "foreign"
    shutil.copytree(data[1], folder)
    rows = load_from_disk(str(folder)).to_list()
    rows = [row | {"text_embeds": row["text_embeds"][: row["text_length"] * 6], "text_dim": 6} for row in rows]
    from datasets import Dataset

    Dataset.from_list(rows, features=load_from_disk(str(data[1])).features).save_to_disk(str(folder) + "-narrow")
    assert main(flags((data[0], str(folder) + "-narrow"), tmp_path / "out")) == 2
    assert "6 text channels, the model expects 12" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_data_of_other_codecs_is_refused_though_its_sizes_fit(data, tmp_path, capsys):
    other = save_pipeline(tmp_path / "other", seed=1)
    for name in ("video_codec", "audio_codec"):  # only the text encoder is another one
        shutil.rmtree(other / name)
        shutil.copytree(data[0] / name, other / name)
    for dry_run in ([], ["--dry_run"]):
        assert main([*flags((other, data[1]), tmp_path / "out"), *dry_run]) == 2
        assert "was made by the codecs and the text encoder of" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_recipe_parses_and_resolved_settings_read_back(tmp_path):
    config = parse(["--config", str(RECIPE), "--report_to", "tensorboard", "--gradient_checkpointing", "true"])
    path = tmp_path / "resolved.yaml"
    path.write_text(yaml.safe_dump(resolved_settings(config)))
    assert resolved_settings(parse(["--config", str(path)])) == resolved_settings(config)


def test_help_explains_every_setting_of_its_own(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for name in ("beta_video", "fm_weight", "lora_r", "dataset", "resume_from_checkpoint"):
        assert f"--{name} " in out
    assert max(map(len, out.splitlines())) < 140


def test_unknown_setting_names_the_nearest(data, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([*flags(data, tmp_path / "out"), "--beta_vidio", "1"])
    assert "beta_video" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"output_dir": ""}, "nowhere to put"),
        ({"model": ""}, "set --model"),
        ({"beta_video": -1.0}, "towards the loser"),
        ({"fm_weight": -1.0}, "fm_weight is -1.0"),
        ({"fm_weight_audio": -1.0}, "fm_weight_audio is -1.0, which would train away"),
        ({"video_weight": 0.0, "audio_weight": 0.0}, "nothing would train"),
        ({"label_smoothing": 0.1, "loss_type": "hinge"}, "has no meaning"),
        ({"text_dropout": 1.0}, "no chance"),
        ({"shift_scale": 0.0}, "positive one"),
        ({"eval_strategy": "steps", "eval_steps": 5}, "give eval_dataset or sample_prompts"),
        ({"sample_prompts": ["a"]}, "set eval_strategy to 'steps'"),
        ({"eval_strategy": "steps", "eval_steps": 5, "sample_prompts": ["a"], "stop_on_decline": 0.5}, "two prompts"),
        ({"eval_strategy": "steps", "eval_steps": 5, "eval_dataset": "a", "eval_rewards": ["b"]}, "no samples"),
        (
            {"eval_strategy": "steps", "eval_steps": 5, "eval_dataset": "a", "trainable": "full"}
            | {"precompute_ref_errors": True},
            "reference in memory",
        ),
        ({"trainable": "full", "adapter": "continue"}, "choose one"),
        ({"sync_ref_model": True}, "use trainable: full"),
        ({"trainable": "full", "sync_ref_model": True, "precompute_ref_errors": True}, "turn one off"),
        ({"trainable": "full", "sync_ref_model": True, "ref_model_mixup_alpha": 0.0}, r"in \(0, 1\]"),
        (
            {"trainable": "full", "ref_model_sync_steps": 8},
            "ref_model_sync_steps is 8, but the reference stands",
        ),
        ({"trainable": "full", "dtype": "bfloat16"}, "lose small updates"),
        ({"trainable": "full", "lora_r": 16}, "lora_r is 16, but trainable 'full' has no adapter"),
        ({"trainable": "full", "lora_dropout": 0.05}, "lora_dropout is 0.05"),
        ({"trainable": "full", "lora_target_modules": ["q"]}, "leave it out"),
        ({"winner_preserving_mu": 0.0, "loss_type": "ipo"}, "itself raises"),
        ({"dataset": ""}, "set --dataset"),
        ({"ema_decay": 1.0}, "published is 0.99"),
        ({"lora_r": 0}, "rank >= 1"),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**({"output_dir": str(tmp_path), "model": "tiny", "dataset": "data"} | change))


def test_flow_matching_weight_of_one_modality_replaces_that_of_both(tmp_path):
    def weights(**settings):
        return AVDPOConfig(output_dir=str(tmp_path), **settings).fm_weights

    assert weights() == {"video": 0.1, "audio": 0.1}
    assert weights(fm_weight=0.5, fm_weight_audio=0.0) == {"video": 0.5, "audio": 0.0}
    assert weights(fm_weight_video=2.0) == {"video": 2.0, "audio": 0.1}


def test_defaults_are_the_published_ones(tmp_path):
    config = AVDPOConfig(output_dir=str(tmp_path))
    assert config.beta == {"video": 3000.0, "audio": 1000.0}
    assert config.modality_weights == {"video": 1.0, "audio": 1.0}
    assert (config.fm_weight, config.text_dropout, config.shift_scale, config.learning_rate) == (0.1, 0.1, 5.0, 1e-5)


def test_plan_of_the_published_recipe_needs_no_weights(tmp_path, capsys):
    """The batches have as many pairs of each shape as the release's on a GPU."""
    shapes = {
        (81, 480, 864): 1,
        (65, 480, 864): 1,
        (81, 368, 640): 2,
        (81, 240, 432): 4,
        (65, 240, 432): 5,
    }
    rows = []
    for number, (num_frames, height, width) in enumerate(shapes):
        video = [16, (num_frames - 1) // 4 + 1, height // 8, width // 8]
        audio = [8, training_mel_frames(num_frames / 16) // 4, 16]
        size = {"num_frames": num_frames, "height": height, "width": width, "text_embeds": [0.0] * 4096}
        size |= {"text_length": 1, "text_dim": 4096, "video_latents_shape": video, "audio_latents_shape": audio}
        for side in ("chosen", "rejected"):
            size |= {
                f"{side}_video_latents": [0.0] * math.prod(video),
                f"{side}_audio_latents": [0.0] * math.prod(audio),
            }
        rows += make_rows(1, first_id=number, **size)
    data = save_rows(tmp_path / "data", rows, text_len=512)
    argv = ["--config", str(PUBLISHED), "--model", "javisdit_pp", "--adapter", "new", "--dataset", str(data)]
    assert main([*argv, "--output_dir", str(tmp_path / "out"), "--dry_run", "--dataloader_drop_last", "false"]) == 0
    out = capsys.readouterr().out
    assert "480x864 81 frames: 1 pairs of 69,064 tokens" in out
    for (num_frames, height, width), pairs in shapes.items():
        assert f"{height}x{width} {num_frames} frames: {pairs} pairs of" in out
    assert "trains 127,795,200 of 2,380,184,160 parameters (lora)" in out
    assert "on this CPU" not in out
    assert not (tmp_path / "out").exists()


def test_published_recipe_holds_the_published_values(tmp_path):
    config = parse(["--config", str(PUBLISHED), "--dry_run"])
    assert (config.beta, config.fm_weight, config.loss_type) == ({"video": 3000.0, "audio": 1000.0}, 0.1, "sigmoid")
    assert (config.learning_rate, config.warmup_steps, config.num_train_epochs) == (1e-5, 100, 1)
    assert (config.lora_r, config.lora_alpha, config.adam_epsilon, config.weight_decay) == (64, 16, 1e-15, 0.0)
    assert (config.ema_decay, config.text_dropout, config.shift_scale, config.max_grad_norm) == (0.99, 0.1, 5.0, 1.0)
    assert (config.save_steps, config.save_total_limit, config.trainable, config.adapter) == (
        1000,
        20,
        "lora",
        "continue",
    )


@pytest.mark.parametrize(
    "kind",
    [
        {"lora_dropout": 0.2},
        pytest.param({"trainable": "full", "precompute_ref_errors": True}, marks=pytest.mark.slow),
    ],
)
def test_killed_run_goes_on_with_the_same_losses_bit_for_bit(data, tmp_path, kind):
    settings = {"max_steps": 30, "save_steps": 3, "learning_rate": 1e-3, "ema_decay": 0.5} | kind
    assert main(flags(data, tmp_path / "whole", **settings)) == 0
    killed = tmp_path / "killed"
    argv = [sys.executable, "-m", "dpo.train", *flags(data, killed, **settings)]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1"
    }  # the same number of threads as in this process, because it changes the rounding of sums
    process = subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.time() + 120
    while not (killed / "checkpoint-3" / "trainer_state.json").exists():
        assert process.poll() is None
        assert time.time() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (killed / "summary.json").exists()
    assert main(flags(data, killed, resume_from_checkpoint="latest", **settings)) == 0
    assert losses(killed) == losses(tmp_path / "whole")
    for part in ("", "ema"):
        whole, resumed = (JointAVPipeline.from_pretrained(run / part).model_id for run in (tmp_path / "whole", killed))
        assert whole == resumed
