"""Preference training: `python -m dpo.train --config recipes/tiny/dpo.yaml`.

Writes the adapter (peft layout), `train_log.jsonl`, checkpoints, `config.yaml` and, last, `summary.json` into
`output_dir`.  A finished run is left alone; `--resume_from_checkpoint latest` goes on where a killed one stopped.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from dpo.state import dataset_fingerprint, finished_summary, refuse_changes
from media.atomic import atomic_write_text
from media.cli import StageSummary, echo, package_versions, parse_config

if TYPE_CHECKING:
    from dpo.config import TrainConfig
    from dpo.data import PairDataset
    from model.transformer import JointDiT

RUN_NAME = "run.json"  # settings of the run that owns the folder, from its first second on
STAGE = "train"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; 0 on success, 2 on a mistake in the input."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(argv):
        echo(help_text())
        return 0
    try:
        finished = finished_by(argv)
        if finished is None:
            finished = train(parse(argv), command=_command(argv))
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    if finished is not None:
        echo(finished.line())
    return 0


def train(config: "TrainConfig", command: dict[str, Any] | None = None) -> StageSummary | None:
    """Trains an adapter on the pairs and writes it with its records; None after a dry run.

    Args:
        config: the settings.
        command: what the user typed, kept in the summary so that the same command can return at once.

    Raises:
        ValueError: data that does not fit the model, an output folder of another run, a diverged loss.
    """
    from dpo.config import NEUTRAL_SETTINGS, resolved_settings

    started = time.perf_counter()
    folder, resolved = Path(str(config.output_dir)), resolved_settings(config)
    settings = {"dataset_fingerprint": dataset_fingerprint(Path(config.dataset))} | {
        name: value for name, value in resolved.items() if name not in NEUTRAL_SETTINGS | {"output_dir", "dataset"}
    }
    settings = json.loads(json.dumps(settings))
    found = finished_summary(folder)
    refuse_changes(folder, found["settings"] if found else _started_settings(folder) or settings, settings)
    if found:
        return _skipped(found, started)

    text = yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True)
    echo(text.rstrip())
    dataset, network = _load(config)
    if config.dry_run:
        echo(plan(config, dataset, network))
        return None
    atomic_write_text(folder / RUN_NAME, json.dumps(settings, indent=2) + "\n")
    atomic_write_text(folder / "config.yaml", text)
    done, skipped = _fit(config, dataset, network)
    versions = package_versions("avdpo", "torch", "transformers", "peft", "accelerate")
    seconds = time.perf_counter() - started
    summary = StageSummary(STAGE, done, done, skipped, 0, seconds, settings | {"command": command}, versions)
    summary.write(folder)
    return summary


def finished_by(argv: Sequence[str]) -> StageSummary | None:
    """The summary of the run that exactly this command has finished on this data, found without importing torch."""
    started = time.perf_counter()
    command = _command(argv)
    folder, dataset = (command["flags"].get(name) or command["yaml"].get(name) for name in ("output_dir", "dataset"))
    found = finished_summary(Path(folder)) if folder else None
    if found is None or not dataset or found["settings"].get("command") != command:
        return None
    if found["settings"]["dataset_fingerprint"] != dataset_fingerprint(Path(dataset)):
        return None
    return _skipped(found, started)


def parse(argv: Sequence[str]) -> "TrainConfig":
    """The settings of a command line; imports transformers, whose arguments are part of them."""
    from dpo.config import TrainConfig

    return parse_config(TrainConfig, argv)


def help_text() -> str:
    """The settings of this package; `TrainingArguments` has a hundred more, most of them for language models."""
    from dpo.config import AVDPOConfig, TrainConfig

    own = [*TrainConfig.__annotations__, *AVDPOConfig.__annotations__]
    known = {field.name: field for field in fields(TrainConfig)}
    lines = [f"  --{name:<28} {known[name].metadata['help']}{_default(known[name])}" for name in own]
    return "\n".join(
        [
            "usage: python -m dpo.train [--config FILE.yaml] [--SETTING VALUE ...]",
            "",
            "Trains a LoRA adapter on preference pairs. Flags win over the YAML, the YAML over the defaults.",
            "",
            *lines,
            f"  --{'resume_from_checkpoint':<28} 'latest', or a checkpoint folder of this run",
            "",
            "Every field of transformers.TrainingArguments is accepted as well: max_steps, gradient_checkpointing,",
            "gradient_accumulation_steps, bf16, max_grad_norm, seed, dataloader_num_workers, disable_tqdm, ...",
        ]
    )


def plan(config: "TrainConfig", dataset: "PairDataset", network: "JointDiT") -> str:
    """What a run would do, after every check that does not need a step."""
    from dpo.data import ShapeBucketSampler
    from dpo.lora import attach_lora

    model = attach_lora(network, lora_config(config), config.seed)
    trainable, total = model.get_nb_trainable_parameters()
    sampler = ShapeBucketSampler(dataset.shapes, config.train_batch_size, config.seed, config.dataloader_drop_last)
    batches = math.ceil(len(sampler) / config.world_size)
    updates = math.ceil(batches / config.gradient_accumulation_steps)
    steps = config.max_steps if config.max_steps > 0 else math.ceil(config.num_train_epochs * updates)
    return (
        f"{STAGE}: {len(dataset)} pairs in {len(sampler.buckets)} shape(s), {updates} steps an epoch, {steps} steps; "
        f"{trainable:,} of {total:,} parameters train (dry run: nothing written); output {config.output_dir}"
    )


def lora_config(config: "TrainConfig") -> Any:
    """The adapter of the settings; it names the model it belongs to."""
    from peft import LoraConfig

    return LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=config.lora_target_modules,
        base_model_name_or_path=config.model,
    )


def latest_checkpoint(folder: Path) -> Path | None:
    """The last complete checkpoint, or None: its state is written last, so a torn one has none."""
    complete = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
    return max(complete, key=lambda path: int(path.name.rsplit("-", 1)[1]), default=None)


def _default(setting: Field[Any]) -> str:
    return "" if setting.default in (MISSING, None, "") else f" [{setting.default}]"


def _load(config: "TrainConfig") -> tuple["PairDataset", "JointDiT"]:
    from dpo.data import PairDataset
    from model.locate import load_transformer

    dataset = PairDataset.load(config.dataset)
    network = load_transformer(config.model)
    dataset.check_network(network)
    return dataset, network


def _fit(config: "TrainConfig", dataset: "PairDataset", network: "JointDiT") -> tuple[int, int]:
    """Trains and saves the adapter; returns the number of steps, and how many of them a checkpoint gave."""
    from dpo.trainer import AVDPOTrainer

    trainer = AVDPOTrainer(network, config, dataset, peft_config=lora_config(config))
    checkpoint = _checkpoint(config)
    restored = int(checkpoint.name.rsplit("-", 1)[1]) if checkpoint else 0
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    trainer.save_model()
    trainer.save_state()
    return trainer.state.global_step, restored


def _checkpoint(config: "TrainConfig") -> Path | None:
    wanted = config.resume_from_checkpoint
    if not wanted:
        return None
    if wanted == "latest":
        return latest_checkpoint(Path(str(config.output_dir)))
    if not (Path(wanted) / "trainer_state.json").is_file():
        raise ValueError(f"{wanted} is no complete checkpoint: give a checkpoint-<step> folder, or 'latest'.")
    return Path(wanted)


def _started_settings(folder: Path) -> dict[str, Any] | None:
    path = folder / RUN_NAME
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _skipped(found: dict[str, Any], started: float) -> StageSummary:
    seconds = time.perf_counter() - started
    return StageSummary(STAGE, found["wanted"], found["done"], found["done"], 0, seconds, found["settings"], {})


def _command(argv: Sequence[str]) -> dict[str, Any]:
    """The command line and the YAML it names, as written: equal commands mean equal settings."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("config", "output_dir", "dataset"):
        parser.add_argument(f"--{name}", f"--{name.replace('_', '-')}")
    flags, rest = parser.parse_known_args(list(argv))
    content = None
    if flags.config and Path(flags.config).is_file():
        content = yaml.safe_load(Path(flags.config).read_text(encoding="utf-8"))
    return {"yaml": content if isinstance(content, dict) else {}, "flags": vars(flags) | {"rest": rest}}


if __name__ == "__main__":
    sys.exit(main())
