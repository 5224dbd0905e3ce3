"""`python -m model.train`: what it writes, how it goes on, what it refuses, and its plan."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from media.audio import read_wav
from model.javisdit.weights.folders import load_transformer
from model.presets import preset_path
from model.train.callbacks import read_log
from model.train.command import main
from model.train.config import TrainConfig
from model.train.plan import estimate_memory
from model.train.start import choose_trainable
from tests.model.train.latent_rows import make_rows, save_dataset
from tests.small_latents import CONFIG, small_network

ROOT = Path(__file__).parents[3]
PARTS = ("video_codec", "audio_codec", "text_encoder")


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
    parts = {name: str(preset_path("tiny") / name) for name in PARTS}
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
        "use_cpu": True,
        "disable_tqdm": True,
    } | changes
    if values.get("trainable") == "lora":
        values = {"lora_r": 4} | values
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
    anywhere = partial(flags, start, tmp_path, use_cpu=False)  # whether there is a GPU or none
    assert main(anywhere()) == 0
    stamp = (tmp_path / "transformer" / "model.safetensors").stat().st_mtime_ns
    capsys.readouterr()
    assert main(anywhere()) == 0
    assert "done 3 (skipped 3)" in capsys.readouterr().out
    assert (tmp_path / "transformer" / "model.safetensors").stat().st_mtime_ns == stamp
    assert main(anywhere(learning_rate=0.5)) == 2
    assert "learning_rate (0.01 -> 0.5)" in capsys.readouterr().err
    assert main(anywhere(dry_run=True)) == 0


def test_a_killed_run_goes_on_with_the_same_losses(start, tmp_path):
    settings = {"max_steps": 40, "save_steps": 4, "trainable": "lora"}
    assert main(flags(start, tmp_path / "whole", **settings)) == 0
    argv = [sys.executable, "-m", "model.train", *flags(start, tmp_path / "killed", **settings)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # as in this process: sums round as their threads share them
    process = subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
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


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    """(model folder, prepared clips): the network and codecs of the tiny preset, sampling in one step."""
    root = tmp_path_factory.mktemp("sampled")
    parts = {part: str(preset_path("tiny") / part) for part in (*PARTS, "transformer")}
    defaults = {"num_frames": 33, "height": 64, "width": 64, "num_inference_steps": 1, "guidance_scale": 1.0}
    (root / "pipeline.json").write_text(json.dumps({"components": parts, "defaults": defaults}))
    return root, save_dataset(root / "clips", tiny_rows())


def sample_flags(sampled, output, **changes):
    values = {"eval_strategy": "steps", "eval_steps": 2, "max_steps": 4, "save_strategy": "no", "logging_steps": 4}
    return [*flags(sampled, output, **(values | changes)), "--sample_prompts", "a red ball", "a blue ball"]


def test_samples_with_sound_are_written_at_every_evaluation(sampled, tmp_path):
    assert main(sample_flags(sampled, tmp_path)) == 0
    steps = [path.name for path in sorted((tmp_path / "samples").iterdir())]
    assert steps == ["step-0000002", "step-0000004"]
    for step in steps:
        files = sorted(path.name for path in (tmp_path / "samples" / step).iterdir())
        assert files == ["0.mp4", "0.wav", "1.mp4", "1.wav"]
    sounds = [read_wav(tmp_path / "samples" / step / "0.wav")[0] for step in steps]
    assert sounds[0].shape[-1] == 33_000
    assert sounds[0].std() > 0
    assert not (sounds[0] == sounds[1]).all()  # the same noise, by other weights


def test_stage_1_samples_are_sound_alone(sampled, tmp_path):
    assert main(sample_flags(sampled, tmp_path, trainable="audio", max_steps=2)) == 0
    assert sorted(path.name for path in tmp_path.glob("samples/*/*")) == ["0.wav", "1.wav"]


def test_samples_change_no_weight(sampled, tmp_path):
    runs = {"with": sample_flags, "without": flags}
    for name, command in runs.items():
        assert main(command(sampled, tmp_path / name, trainable="lora", max_steps=3, save_strategy="no")) == 0
    adapters = [load_file(tmp_path / name / "adapter_model.safetensors") for name in runs]
    assert all(torch.equal(tensor, adapters[1][name]) for name, tensor in adapters[0].items())


def test_tensorboard_gets_losses_pictures_and_sound(sampled, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    argv = sample_flags(sampled, tmp_path / "out", max_steps=2, report_to="tensorboard")
    if importlib.util.find_spec("tensorboard") is None:
        assert main(argv) == 2
        assert "pip install tensorboard" in capsys.readouterr().err
        pytest.skip("TensorBoard is not installed")
    assert main(argv) == 0
    events = b"".join(path.read_bytes() for path in (tmp_path / "board").rglob("*tfevents*"))
    for found in (b"train/loss/audio", b"samples/0", b"audio/wav", b"\x89PNG"):
        assert found in events


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
        ({"dataset": None, "clips": "clips.csv"}, "buckets is empty"),
        ({"video_backbone": "wan", "trainable": "lora"}, "run stage 1 on the backbone first"),
        ({"trainable": "audio", "lora_r": 16}, "lora_r is 16, but trainable 'audio' has no adapter"),
        ({"ffn": "shared"}, "can be chosen with video_backbone only"),
        ({"dtype": "bfloat16"}, "would lose small updates"),
        ({"eval_strategy": "steps"}, "give eval_dataset or sample_prompts"),
        ({"dataset": "nowhere"}, "nowhere holds no prepared clips"),
        ({"model": "nowhere"}, "'nowhere' is no model"),
        ({"resume_from_checkpoint": "nowhere"}, "nowhere is no complete checkpoint"),
        ({"learning_rat": 1}, "nearest match is '--learning_rate'"),
    ],
)
def test_mistakes_are_told_in_a_line(start, tmp_path, capsys, changes, message):
    try:
        status = main(flags(start, tmp_path / "out", **changes))
    except SystemExit as stop:  # of the parser
        status = stop.code
    assert status == 2
    told = capsys.readouterr().err
    assert message in told.splitlines()[-1]
    assert "Traceback" not in told
    assert not (tmp_path / "out" / "run.json").exists()


@pytest.mark.parametrize(
    ("recipe", "trained", "lines"),
    [
        (
            "stage1_audio.yaml",
            833_392_160,
            [
                # 33 / 24 s are 144 mel frames, 36 x 16 latents, 18 x 8 tokens
                "144p 33 frames: 128 clips of 144 tokens = 18,432 tokens per batch",
                "144p 129 frames: 64 clips of 544 tokens = 34,816 tokens per batch",
                # 2,252,388,960 weights of 4 bytes, bfloat16 copies of what trains; 4 and 8 bytes for what trains
                "weights 9.94 + gradients 3.10 + optimiser 6.21 + average 3.10 + activations",
                "2 checkpoints of 17.70 GiB and the model of 16.78 GiB",
            ],
        ),
        (
            "stage2_sft.yaml",
            127_795_200,
            [
                # 3,915 video tokens at 1:2, the most of 240p, and 26 x 8 of 208 mel frames
                "240p 33 frames: 12 clips of 4,123 tokens = 49,476 tokens per batch",
                # 35,154 at 9:21 and 512 of the sound
                "480p 81 frames: 2 clips of 35,666 tokens = 71,332 tokens per batch",
                # the adapter is another 127,795,200 weights
                "weights 9.10 + gradients 0.48 + optimiser 0.95 + average 0.48 + activations",
                "20 checkpoints of 1.90 GiB and the model of 0.95 GiB",
            ],
        ),
    ],
)
def test_dry_run_of_a_published_stage_needs_no_weights_and_writes_nothing(tmp_path, capsys, recipe, trained, lines):
    argv = ["--config", str(ROOT / "recipes" / "javisdit_pp" / recipe), "--output_dir", str(tmp_path / "out")]
    assert main([*argv, "--dry_run"]) == 0
    told = capsys.readouterr().out
    for line in (f"trains {trained:,} of ", "published: 22.0 GiB", "dry run: nothing written", *lines):
        assert line in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("trainable", ["full", "lora"])
def test_estimated_activations_are_what_autograd_keeps(tmp_path, trainable, bf16):
    settings = {"trainable": trainable, "bf16": bf16, "use_cpu": True, "output_dir": str(tmp_path)}
    config = TrainConfig(model="tiny", dataset="clips", **settings)
    networks = [small_network(dim=128, ffn_dim=512, num_layers=layers) for layers in (1, 4)]
    models = [choose_trainable(network, config) for network in networks]
    tokens = CONFIG.num_tokens({"video": (8, 8, 8), "audio": (32, 8)})

    def estimated():
        sizes = [estimate_memory(models[0], network.config, config, tokens).activations for network in networks]
        return 2**30 * sizes[0], 2**30 * (sizes[1] - sizes[0])

    def kept_by_three_blocks():
        """Of a longer clip beyond a shorter one, so that copies of weights drop out."""
        first, second = (kept_for_backward(model, 12, bf16) - kept_for_backward(model, 4, bf16) for model in models)
        return second - first

    one_block, three_blocks = estimated()
    assert three_blocks == 3 * one_block == pytest.approx(kept_by_three_blocks(), rel=0.05)
    config.gradient_checkpointing = True
    for network in networks:
        network.gradient_checkpointing = True
    recomputed, three_inputs = estimated()
    assert recomputed - three_inputs / 3 == one_block  # is kept when its turn has come
    assert three_inputs == kept_by_three_blocks() == 3 * tokens * 128 * 4


def kept_for_backward(model, length, bf16):
    """Bytes of the tensors that a forward pass saves, weights left out."""
    storages, weights = {}, {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def pack(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    video, audio = torch.randn(1, 4, length, 8, 8), torch.randn(1, 2, length * 4, 8)
    text = torch.randn(1, CONFIG.text_len, CONFIG.text_dim)
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        output = model(video, audio, torch.tensor([500.0]), text, torch.ones(1, CONFIG.text_len))
        size = sum(storage.nbytes() for pointer, storage in storages.items() if pointer not in weights)
    del output
    return size


def test_dry_run_counts_the_clips_of_a_dataset(start, tmp_path, capsys):
    assert main(flags(start, tmp_path / "out", dry_run=True, max_steps=None, num_train_epochs=3)) == 0
    told = capsys.readouterr().out
    assert "32x32 9 frames: 4 clips of 20 tokens = 80 tokens per batch and device" in told
    assert "8 clips, 2 steps an epoch, 6 steps" in told
