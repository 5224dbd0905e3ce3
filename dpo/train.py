"""Preference training: `python -m dpo.train --config recipes/tiny/dpo.yaml`.

Writes the adapter (peft layout), `train_log.jsonl`, checkpoints, `config.yaml` and, last, `summary.json` into
`output_dir`.  A finished run is left alone; `--resume_from_checkpoint latest` goes on where a killed one stopped.
"""

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from dpo.state import dataset_fingerprint
from media.atomic import atomic_write_text
from media.cli import StageSummary, echo, package_versions, parse_config
from media.stage_state import finished_summary
from media.training_help import training_help

if TYPE_CHECKING:
    from dpo.config import TrainConfig
    from dpo.data import PairDataset
    from model.transformer import JointDiT

STAGE = "train"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; 0 on success, 2 on a mistake in the input."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(argv):
        from dpo.config import TrainConfig

        echo(training_help("dpo.train", "Trains a LoRA adapter on preference pairs.", TrainConfig))
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
    from dpo.config import NEUTRAL_SETTINGS
    from model.run_state import begin, claim_folder, comparable
    from model.training_args import resolved_settings

    started = time.perf_counter()
    folder, resolved = Path(str(config.output_dir)), resolved_settings(config)
    settings = comparable(resolved, NEUTRAL_SETTINGS | {"dataset"})
    settings = {"dataset_fingerprint": dataset_fingerprint(Path(config.dataset))} | settings
    found = claim_folder(folder, settings)
    if found:
        return _skipped(found, started)

    text = yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True)
    echo(text.rstrip())
    dataset, network = _load(config)
    if config.dry_run:
        echo(plan(config, dataset, network))
        return None
    begin(folder, settings)
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


def plan(config: "TrainConfig", dataset: "PairDataset", network: "JointDiT") -> str:
    """What a run would do, after every check that does not need a step."""
    from model.batches import BucketBatchSampler
    from model.lora import attach_adapter, lora_config

    model = attach_adapter(network, lora_config(config), config.seed)
    trainable, total = model.get_nb_trainable_parameters()
    sampler = BucketBatchSampler(
        dataset.labels, lambda label: config.train_batch_size, config.seed, config.dataloader_drop_last
    )
    batches = math.ceil(len(sampler) / config.world_size)
    updates = math.ceil(batches / config.gradient_accumulation_steps)
    steps = config.max_steps if config.max_steps > 0 else math.ceil(config.num_train_epochs * updates)
    return (
        f"{STAGE}: {len(dataset)} pairs in {len(set(dataset.shapes))} shape(s), {updates} steps an epoch, "
        f"{steps} steps; "
        f"{trainable:,} of {total:,} parameters train (dry run: nothing written); output {config.output_dir}"
    )


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
    from model.lora import lora_config
    from model.run_state import checkpoint_step, checkpoint_to_resume

    trainer = AVDPOTrainer(network, config, dataset, peft_config=lora_config(config))
    checkpoint = checkpoint_to_resume(Path(str(config.output_dir)), config.resume_from_checkpoint)
    restored = checkpoint_step(checkpoint) if checkpoint else 0
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    trainer.save_model()
    trainer.save_state()
    return trainer.state.global_step, restored


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
