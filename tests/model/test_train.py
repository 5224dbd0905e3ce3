"""`python -m model.train`: what it writes, how it goes on, what it refuses, and its plan."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from latent_rows import CONFIG, make_rows, save_dataset, small_network

from media.cli import parse_config
from model.callbacks import read_log
from model.locate import load_transformer
from model.presets import preset_path
from model.train import main, make_trainer
from model.train_config import TrainConfig

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def few_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """(model folder, prepared clips): a small network with the codecs of the tiny preset."""
    root = tmp_path_factory.mktemp("start")
    save_model(root / "model", small_network())
    return root / "model", save_dataset(root / "clips")


def save_model(folder, network):
    network.save_pretrained(folder / "transformer")
    parts = {name: str(preset_path("tiny") / name) for name in ("video_codec", "audio_codec", "text_encoder")}
    (folder / "pipeline.json").write_text(json.dumps({"components": parts, "defaults": {"num_inference_steps": 2}}))


def flags(start, output, **changes):
    values = {
        "model": start[0],
        "dataset": start[1],
        "output_dir": output,
        "max_steps": 3,
        "learning_rate": 1e-2,
        "warmup_steps": 0,
        "logging_steps": 1,
        "save_steps": 1,
        "save_total_limit": 9,
        "per_device_train_batch_size": 4,
        "lora_r": 4,
        "use_cpu": True,
        "disable_tqdm": True,
    } | changes
    return [part for name, value in values.items() if value is not None for part in (f"--{name}", str(value))]


def losses(folder):
    return [line["loss"] for line in read_log(folder) if "loss" in line]


@pytest.mark.parametrize("trainable", ["full", "audio", "lora"])
def test_what_it_writes_is_a_model_and_so_is_the_average(start, tmp_path, trainable):
    assert main(flags(start, tmp_path / "out", trainable=trainable, ema_decay=0.5)) == 0
    before = load_transformer(start[0]).state_dict()
    trained, average = (load_transformer(tmp_path / "out" / part).state_dict() for part in ("", "ema"))
    changed = {name for name in before if not torch.equal(trained[name], before[name])}
    assert changed == {name for name in before if not torch.equal(average[name], before[name])}
    assert any(not torch.equal(trained[name], average[name]) for name in changed)
    if trainable == "full":
        assert changed == set(before)
    if trainable == "audio":
        assert changed == {name for name in before if "audio_" in name}
    if trainable == "lora":
        assert all(re.search(r"\.(self_attn|cross_attn|ffn|audio_ffn)\.\w+\.weight$", name) for name in changed)


def test_the_next_stage_takes_it_wherever_the_folders_are_moved_to(start, tmp_path):
    (tmp_path / "runs").mkdir()
    save_model(tmp_path / "runs" / "base", small_network())
    assert main(flags((tmp_path / "runs" / "base", start[1]), tmp_path / "runs" / "one", trainable="audio")) == 0
    (tmp_path / "runs").rename(tmp_path / "moved")
    moved = tmp_path / "moved" / "one"
    assert main(flags((moved, start[1]), tmp_path / "two", trainable="lora", max_steps=1)) == 0
    assert load_transformer(tmp_path / "two").config == CONFIG


def test_a_finished_run_is_left_alone_and_other_settings_are_refused(start, tmp_path, capsys):
    assert main(flags(start, tmp_path)) == 0
    stamp = (tmp_path / "transformer" / "model.safetensors").stat().st_mtime_ns
    capsys.readouterr()
    assert main(flags(start, tmp_path)) == 0
    assert "done 3 (skipped 3)" in capsys.readouterr().out
    assert (tmp_path / "transformer" / "model.safetensors").stat().st_mtime_ns == stamp
    assert main(flags(start, tmp_path, learning_rate=0.5)) == 2
    assert "learning_rate (0.01 -> 0.5)" in capsys.readouterr().err


def test_a_killed_run_goes_on_with_the_same_losses(start, tmp_path):
    settings = {"max_steps": 40, "save_steps": 4, "trainable": "lora"}
    assert main(flags(start, tmp_path / "whole", **settings)) == 0
    argv = [sys.executable, "-m", "model.train", *flags(start, tmp_path / "killed", **settings)]
    process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.time() + 120
    while not (tmp_path / "killed" / "checkpoint-4" / "trainer_state.json").exists():
        assert process.poll() is None
        assert time.time() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "summary.json").exists()
    assert main(flags(start, tmp_path / "killed", resume_from_checkpoint="latest", **settings)) == 0
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")


def test_samples_with_sound_are_written_at_every_evaluation(start, tmp_path):
    tiny = preset_path("tiny")
    clips = save_dataset(tmp_path / "clips", tiny_rows())
    common = {"eval_strategy": "steps", "eval_steps": 2, "max_steps": 4, "save_strategy": "no"}
    argv = [*flags((tiny, clips), tmp_path / "both", **common), "--sample_prompts", "a red ball", "a blue ball"]
    config = parse_config(TrainConfig, argv)
    trainer = make_trainer(config)
    [writer] = [one for one in trainer.callback_handler.callbacks if hasattr(one, "pipeline")]
    writer.pipeline.defaults = type(writer.pipeline.defaults)(
        num_frames=33, height=64, width=64, num_inference_steps=1, guidance_scale=1.0
    )
    trainer.train()
    files = sorted(str(path.relative_to(tmp_path / "both" / "samples")) for path in tmp_path.glob("both/samples/*/*"))
    steps = ("step-0000002", "step-0000004")
    assert files == [f"{step}/{index}.{kind}" for step in steps for index in (0, 1) for kind in ("mp4", "wav")]


def test_stage_1_samples_are_sound_alone(tmp_path):
    tiny = preset_path("tiny")
    clips = save_dataset(tmp_path / "clips", tiny_rows())
    settings = {"eval_strategy": "steps", "eval_steps": 1, "max_steps": 1, "trainable": "audio"}
    argv = [*flags((tiny, clips), tmp_path / "out", **settings), "--sample_prompts", "a red ball"]
    assert main(argv) == 0
    assert [path.name for path in tmp_path.glob("out/samples/*/*")] == ["0.wav"]


def tiny_rows():
    config = load_transformer("tiny").config
    video, audio = (config.video_channels, 3, 8, 8), (config.audio_channels, 12, 16)
    rows = make_rows(4, video_shape=video)
    for row in rows:
        generator = torch.Generator().manual_seed(1)
        row["audio_latents"] = torch.randn(audio, generator=generator).flatten().tolist()
        row["audio_latents_shape"] = list(audio)
        row["text_embeds"] = torch.randn(row["text_length"], config.text_dim, generator=generator).flatten().tolist()
        row["text_dim"] = config.text_dim
    return rows


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": None}, "give one of them"),
        ({"clips": "clips.csv"}, "give one of them"),
        ({"dataset": None, "clips": "clips.csv"}, "clips need buckets"),
        ({"video_backbone": "wan", "trainable": "lora"}, "run stage 1 on the backbone first"),
        ({"ffn": "shared"}, "can be chosen with video_backbone only"),
        ({"dtype": "bfloat16"}, "would lose small updates"),
        ({"eval_strategy": "steps"}, "give eval_dataset or sample_prompts"),
        ({"learning_rat": 1}, "nearest match is '--learning_rate'"),
    ],
)
def test_mistakes_are_told_in_a_line(start, tmp_path, capsys, changes, message):
    try:
        status = main(flags(start, tmp_path / "out", **changes))
    except SystemExit as stop:  # of the parser
        status = stop.code
    assert status == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out" / "run.json").exists()


@pytest.mark.parametrize(
    ("recipe", "trained", "lines"),
    [
        # 33 / 24 s are 144 mel frames, 36 x 16 latents, 18 x 8 tokens
        ("stage1_audio.yaml", 833_392_160, ["144p 33 frames: 128 clips of 144 tokens = 18,432 tokens per batch"]),
        # 3,915 video tokens at 1:2, the most of 240p, and 26 x 8 of 208 mel frames
        ("stage2_sft.yaml", 127_795_200, ["240p 33 frames: 12 clips of 4,123 tokens = 49,476 tokens per batch"]),
    ],
)
def test_dry_run_of_a_published_stage_needs_no_weights_and_writes_nothing(tmp_path, capsys, recipe, trained, lines):
    argv = ["--config", str(ROOT / "recipes" / "javisdit_pp" / recipe), "--output_dir", str(tmp_path / "out")]
    assert main([*argv, "--dry_run"]) == 0
    told = capsys.readouterr().out
    assert f"trains {trained:,} of " in told
    for line in lines:
        assert line in told
    memory = float(re.search(r"weights ([\d.]+) \+", told)[1])
    total = int(re.search(r"of ([\d,]+) parameters", told)[1].replace(",", ""))
    assert memory == pytest.approx(4 * total / 2**30, abs=0.01)
    assert not (tmp_path / "out").exists()


def test_dry_run_counts_the_clips_of_a_dataset(start, tmp_path, capsys):
    assert main(flags(start, tmp_path / "out", dry_run=True, max_steps=None, num_train_epochs=3)) == 0
    told = capsys.readouterr().out
    assert "32x32 9 frames: 4 clips of 20 tokens = 80 tokens per batch and device" in told
    assert "8 clips, 2 steps an epoch, 6 steps" in told
