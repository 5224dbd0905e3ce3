"""The kinds of reference: frozen copy, precomputed errors, starting adapter, and a copy that follows the policy."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from dpo.loss.lora import REFERENCE_ADAPTER, continue_adapter, reference_model
from dpo.loss.reference import REFERENCE_NAME
from dpo.loss.reference_errors import ReferenceErrors
from dpo.train.command import main
from dpo.train.trainer import noisy_pairs
from model.javisdit.pipeline import JointAVPipeline
from model.javisdit.weights.folders import load_transformer
from model.lora import attach_adapter
from model.train.callbacks import read_log
from model.train.ema import EMA_NAME
from model.train.joint_trainer import save_adapter
from tests.dpo.dpo_helpers import identical_pairs, lora, make_rows, make_trainer, save_model, save_rows, tiny_model
from tests.small_latents import small_network

FULL = {"peft_config": False, "learning_rate": 1e-3, "max_steps": 5}


def lines(folder):
    return [line for line in read_log(folder) if "loss" in line]


def losses(folder):
    return [line["loss"] for line in lines(folder)]


class StopAt(TrainerCallback):
    """Callback that ends a run as a signal would."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def test_full_fine_tuning_begins_at_its_reference_and_leaves_it_there(tmp_path):
    model = tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = make_trainer(tmp_path, model=model, fm_weight=0.0, **FULL)
    trainer.train()
    for name in ("video", "audio"):
        assert lines(tmp_path)[0][f"rewards/margins/{name}"] == 0.0
        assert lines(tmp_path)[-1][f"rewards/margins/{name}"] != 0.0
    frozen = trainer.frozen_copy.model.network.state_dict()
    assert all(torch.equal(frozen[name], value) for name, value in before.items())
    assert all(not torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_identical_pair_has_no_preference_in_full_fine_tuning(tmp_path):
    make_trainer(tmp_path, identical_pairs(make_rows()), text_dropout=0.5, fm_weight=5.0, **FULL).train()
    for line in lines(tmp_path):
        assert all(abs(line[f"rewards/margins/{name}"]) < 1e-3 for name in ("video", "audio"))


@pytest.mark.parametrize("kind", [FULL, {"max_steps": 5}], ids=["full", "lora"])
def test_errors_computed_before_give_the_losses_of_the_frozen_copy(tmp_path, kind):
    rows = make_rows(3) + make_rows(2, video_shape=(4, 2, 4, 4), first_id=3)
    settings = {"text_dropout": 0.3, **kind}
    make_trainer(tmp_path / "copy", rows, **settings).train()
    trainer = make_trainer(tmp_path / "cache", rows, precompute_ref_errors=True, **settings)
    assert trainer.frozen_copy is None
    trainer.train()
    assert losses(tmp_path / "cache") == losses(tmp_path / "copy")
    for line, expected in zip(lines(tmp_path / "cache"), lines(tmp_path / "copy"), strict=True):
        assert line["ref_error/rejected/audio"] == expected["ref_error/rejected/audio"]
    # three batches an epoch, and five steps: the first epoch's five pairs, and those of two batches of the second
    assert 5 < len(trainer.reference_errors) < 10


def test_killed_computation_of_errors_goes_on_and_a_torn_line_is_computed_again(tmp_path):
    make_trainer(tmp_path / "whole", precompute_ref_errors=True, **FULL).train()
    [path] = (tmp_path / "whole" / "reference_errors").glob("*/process-0.jsonl")
    expected = path.read_text()
    path.write_text(expected[: len(expected) // 2 + 5])
    trainer = make_trainer(tmp_path / "whole", precompute_ref_errors=True, **FULL)
    kept = len(ReferenceErrors(path.parent))
    assert 0 < kept < expected.count("\n")
    trainer.train()
    assert sorted(path.read_text().splitlines()) == sorted(expected.splitlines())


def test_a_resumed_run_uses_the_errors_of_the_start_not_of_the_checkpoint(tmp_path):
    settings = FULL | {"precompute_ref_errors": True, "save_strategy": "steps", "save_steps": 2, "ema_decay": 0.5}
    make_trainer(tmp_path / "whole", **settings).train()
    first = make_trainer(tmp_path / "parts", **settings)
    first.add_callback(StopAt(3))
    with pytest.raises(KeyboardInterrupt):
        first.train()
    [path] = (tmp_path / "parts" / "reference_errors").glob("*/process-0.jsonl")
    path.unlink()
    again = make_trainer(tmp_path / "parts", **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-2"))
    assert lines_without_clock(tmp_path / "parts") == lines_without_clock(tmp_path / "whole")


@pytest.mark.parametrize("change", ["seed", "network", "pairs"])
def test_errors_of_other_draws_another_network_or_other_pairs_are_not_taken(tmp_path, change):
    """The folder is the same, as when a model is trained again under its old name."""
    make_trainer(tmp_path, precompute_ref_errors=True, **FULL).train()
    before = sorted(tmp_path.glob("reference_errors/*/*"))
    rows = make_rows(seed=int(change == "pairs"))
    settings = {"model": tiny_model(int(change == "network")), "seed": 7 if change == "seed" else 42, **FULL}
    make_trainer(tmp_path, rows, precompute_ref_errors=True, **settings).train()
    assert len(before) == 1
    assert len(sorted(tmp_path.glob("reference_errors/*/*"))) == 2
    assert lines(tmp_path)[0]["rewards/margins/video"] == 0.0


def lines_without_clock(folder):
    return [{n: v for n, v in line.items() if n not in ("tokens_per_second", "memory_gib")} for line in lines(folder)]


def test_missing_errors_are_named(tmp_path):
    with pytest.raises(ValueError, match="no reference error of pair 'p1' in epoch 2"):
        ReferenceErrors(tmp_path).errors(["p1"], [2], "cpu")


def test_reference_moves_towards_the_policy_as_in_tr_dpo(tmp_path):
    settings = FULL | {"sync_ref_model": True, "ref_model_sync_steps": 2, "ref_model_mixup_alpha": 0.25, "max_steps": 4}
    model = tiny_model()
    expected = {name: value.clone() for name, value in model.named_parameters()}
    trainer = make_trainer(tmp_path, model=model, **settings)

    class Expected(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step in (2, 4):
                for name, value in model.named_parameters():
                    expected[name] = 0.25 * value.detach() + 0.75 * expected[name].detach()

    trainer.add_callback(Expected())
    trainer.train()
    for name, value in trainer.frozen_copy.model.network.named_parameters():
        torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("moving", [True, False])
def test_full_run_resumes_bit_for_bit(tmp_path, moving):
    settings = FULL | {"sync_ref_model": moving, "ema_decay": 0.9} | ({"ref_model_sync_steps": 1} if moving else {})
    settings |= {"save_strategy": "steps", "save_steps": 2, "save_total_limit": None}
    make_trainer(tmp_path / "whole", **settings).train()
    first = make_trainer(tmp_path / "parts", **settings)
    first.add_callback(StopAt(3))
    with pytest.raises(KeyboardInterrupt):
        first.train()
    again = make_trainer(tmp_path / "parts", **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-2"))
    assert lines_without_clock(tmp_path / "parts") == lines_without_clock(tmp_path / "whole")
    names = ["model.safetensors", EMA_NAME, *([REFERENCE_NAME] if moving else [])]
    for name in names:
        one, other = (load_file(tmp_path / run / "checkpoint-4" / name) for run in ("whole", "parts"))
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_moving_an_adapters_reference_is_refused(tmp_path):
    with pytest.raises(ValueError, match="train in full"):
        make_trainer(tmp_path, sync_ref_model=True)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """Return (base model, adapter folder as written by `model.train`, pairs)."""
    root = tmp_path_factory.mktemp("tuned")
    base = save_model(root / "base", small_network())
    settings = lora(r=3, lora_alpha=6, lora_dropout=0.05, base_model_name_or_path=str(base))
    adapted = attach_adapter(small_network(), settings, seed=1)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    save_adapter(adapted, root / "sft", None)
    return base, root / "sft", save_rows(root / "data", make_rows(4))


def flags(tuned, output, **changes):
    values = {"model": tuned[1], "dataset": tuned[2], "output_dir": output, "max_steps": 3, "warmup_steps": 0}
    values |= {"learning_rate": 1e-2, "logging_steps": 1, "save_steps": 1, "per_device_train_batch_size": 2}
    values |= {"use_cpu": True, "disable_tqdm": True} | changes
    if values.get("trainable") != "full" and values.get("adapter") != "continue":
        values["lora_r"] = 4
    return [part for name, value in values.items() for part in (f"--{name}", str(value))]


@pytest.mark.parametrize("adapter", ["new", "continue"])
def test_fine_tuned_adapter_is_part_of_the_reference(tuned, tmp_path, adapter):
    assert main(flags(tuned, tmp_path / "out", adapter=adapter)) == 0
    first = lines(tmp_path / "out")[0]
    for name in ("video", "audio"):
        assert first[f"rewards/margins/{name}"] == 0.0
        assert first[f"ref_error/chosen/{name}"] == first[f"error/chosen/{name}"]
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["r"] == (3 if adapter == "continue" else 4)
    assert config["base_model_name_or_path"] == str(tuned[0] if adapter == "continue" else tuned[1])
    assert not (tmp_path / "out" / REFERENCE_ADAPTER).exists()
    start, out = (load_transformer(folder).state_dict() for folder in (tuned[1], tmp_path / "out"))
    assert any(not torch.equal(out[name], value) for name, value in start.items())


def test_continued_adapter_is_compared_with_itself_as_it_was(tuned):
    model = continue_adapter(load_transformer(tuned[0]), tuned[1], dropout=0.0)
    merged = load_transformer(tuned[1])
    batch = {
        "video": torch.randn(2, 4, 3, 4, 4),
        "audio": torch.randn(2, 2, 8, 4),
        "timestep": torch.tensor([300.0, 700.0]),
        "text": torch.randn(2, 6, 12),
        "text_mask": torch.ones(2, 6, dtype=torch.bool),
    }
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.mul_(0.5)
        assert not torch.allclose(model(**batch).video, merged(**batch).video, atol=1e-4)
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    with reference_model(model):
        torch.testing.assert_close(model(**batch).video, merged(**batch).video, rtol=1e-4, atol=1e-5)
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == trainable
    assert trainable
    assert not any(REFERENCE_ADAPTER in name for name in trainable)


@pytest.mark.parametrize("adapter", ["new", "continue"])
def test_run_on_a_fine_tuned_adapter_resumes_bit_for_bit(tuned, tmp_path, adapter):
    settings = {"adapter": adapter, "lora_dropout": 0.2, "save_total_limit": 5}
    assert main(flags(tuned, tmp_path / "out", **settings)) == 0
    whole, weights = losses(tmp_path / "out"), JointAVPipeline.from_pretrained(tmp_path / "out").model_id
    for name in ("summary.json", "checkpoint-3/trainer_state.json", "checkpoint-2/trainer_state.json"):
        (tmp_path / "out" / name).unlink()
    assert main([*flags(tuned, tmp_path / "out", **settings), "--resume_from_checkpoint", "latest"]) == 0
    assert losses(tmp_path / "out") == whole
    assert JointAVPipeline.from_pretrained(tmp_path / "out").model_id == weights


def test_average_of_the_adapter_is_a_model_too(tuned, tmp_path):
    assert main(flags(tuned, tmp_path / "out", adapter="continue", ema_decay=0.5)) == 0
    start, out, average = (
        load_transformer(folder).state_dict() for folder in (tuned[1], tmp_path / "out", tmp_path / "out" / "ema")
    )
    changed = [name for name in start if not torch.equal(start[name], out[name])]
    assert changed
    for name in changed:
        assert not torch.equal(average[name], out[name])
    assert (tmp_path / "out" / "ema" / "adapter_config.json").is_file()


def test_full_fine_tuning_of_a_merged_adapter_leaves_a_whole_model(tuned, tmp_path):
    assert main(flags(tuned, tmp_path / "out", trainable="full", learning_rate=1e-3)) == 0
    assert (tmp_path / "out" / "transformer" / "model.safetensors").is_file()
    assert JointAVPipeline.from_pretrained(tmp_path / "out").transformer.config == small_network().config


def test_continuing_what_is_no_adapter_is_refused(tuned, tmp_path, capsys):
    assert main(flags((tuned[0], tuned[0], tuned[2]), tmp_path / "out", adapter="continue")) == 2
    assert "is no adapter folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "value"), [("lora_r", 5), ("lora_alpha", 5), ("lora_target_modules", "ffn.0")])
def test_settings_that_a_continued_adapter_would_ignore_are_refused(tuned, tmp_path, capsys, name, value):
    assert main(flags(tuned, tmp_path / "out", adapter="continue", **{name: value})) == 2
    assert f"{name} is" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(flags(tuned, tmp_path / "out", adapter="continue", lora_r=3, lora_alpha=6, max_steps=1)) == 0


def test_adapter_of_another_network_or_with_tensors_missing_is_refused(tuned, tmp_path, capsys):
    broken = shutil.copytree(tuned[1], tmp_path / "broken")
    tensors = load_file(broken / "adapter_model.safetensors")
    tensors.pop(next(iter(tensors)))
    save_file(tensors, broken / "adapter_model.safetensors")
    assert main(flags((None, broken, tuned[2]), tmp_path / "out", adapter="continue")) == 2
    assert "lora_A" in capsys.readouterr().err


def test_gradient_checkpointing_and_reference_agree(tmp_path):
    make_trainer(tmp_path / "a", **FULL).train()
    make_trainer(tmp_path / "b", gradient_checkpointing=True, **FULL).train()
    assert losses(tmp_path / "a") == pytest.approx(losses(tmp_path / "b"), rel=1e-5)


def test_policy_and_reference_share_the_text_dropout(tmp_path):
    """At the start of training, a caption dropped for only one of the two would give different errors."""
    trainer = make_trainer(tmp_path, make_rows(4), text_dropout=0.5, peft_config=lora(), max_steps=1)
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["text_dropped"].any() or not batch["text_dropped"].all()
    arguments, _ = noisy_pairs(batch)
    assert torch.equal(*arguments["text"].chunk(2))
    _, result = trainer.compute_loss(trainer.model, batch, return_outputs=True)
    for name in ("video", "audio"):
        assert torch.equal(result.metrics[f"error/chosen/{name}"], result.metrics[f"ref_error/chosen/{name}"])


@pytest.mark.parametrize(
    "kind",
    [
        {"dtype": "bfloat16", "adapter": "new"},
        {"dtype": "bfloat16", "adapter": "continue"},
        {"trainable": "full"},
        {"trainable": "full", "precompute_ref_errors": True},
        {"dtype": "bfloat16", "precompute_ref_errors": True},
    ],
    ids=["new", "continue", "full", "full-precomputed", "lora-precomputed"],
)
def test_in_bfloat16_too_the_policy_begins_at_its_reference_exactly(tuned, tmp_path, kind):
    assert main(flags(tuned, tmp_path / "out", bf16=True, gradient_checkpointing=True, max_steps=2, **kind)) == 0
    first, second = lines(tmp_path / "out")
    for name in ("video", "audio"):
        assert first[f"rewards/margins/{name}"] == 0.0
        assert second[f"rewards/margins/{name}"] != 0.0
