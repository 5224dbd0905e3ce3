"""Training stages 1 and 2: `python -m model.train --config recipes/javisdit_pp/stage2_sft.yaml`.

Writes the trained model (a folder that generation, the next stage and preference training take as `--model`), the same
with averaged weights in `ema/`, `train_log.jsonl`, samples, checkpoints, `config.yaml` and, last, `summary.json` into
`output_dir`.  A finished run is left alone; `--resume_from_checkpoint latest` goes on where a killed one stopped.
One process, `accelerate launch -m model.train ...` with a file of recipes/accelerate, or `--num_workers N` on Ray.
"""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from media.atomic import atomic_write_text
from media.cli import StageSummary, echo, package_versions, parse_config
from media.training_help import training_help

if TYPE_CHECKING:
    from model.train_config import TrainConfig
    from model.trainer import FlowMatchingTrainer

STAGE = "train"
ABOUT = "Trains a joint audio-video model by flow matching: audio pre-training, fine-tuning by LoRA or in full."


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; 0 on success, 2 on a mistake in the input."""
    argv = list(sys.argv[1:] if argv is None else argv)
    from model.train_config import TrainConfig

    if {"-h", "--help"} & set(argv):
        echo(training_help("model.train", ABOUT, TrainConfig))
        return 0
    try:
        config = parse_config(TrainConfig, argv)
        summary = train_on_ray(config, argv) if config.num_workers and not config.dry_run else train(config)
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    if summary is not None and config.process_index == 0:
        echo(summary.line())
    return 0


def run(argv: Sequence[str]) -> None:
    """One of the processes that `train_on_ray` starts."""
    from model.train_config import TrainConfig

    train(parse_config(TrainConfig, [*argv, "--num_workers", "0"]))


def train_on_ray(config: "TrainConfig", argv: Sequence[str]) -> StageSummary:
    """Trains by `config.num_workers` processes of Ray Train, unless the folder holds the finished run.

    Raises:
        ValueError: what `train` found in one of them, or too few GPUs.
    """
    from model.launch import run_on_ray
    from model.run_state import claim_folder

    started, folder, settings = time.perf_counter(), Path(str(config.output_dir)), _settings(config)[1]
    found = claim_folder(folder, settings)
    if found:
        return _skipped(found, started)
    run_on_ray("model.train", argv, config.num_workers, str(folder), config.use_cpu)
    found = claim_folder(folder, settings)
    assert found is not None, "the first worker writes it"
    return StageSummary(**{field.name: found[field.name] for field in fields(StageSummary)})


def train(config: "TrainConfig") -> StageSummary | None:
    """Trains and writes the model with its records; None after a dry run.

    Raises:
        ValueError: data that does not fit the model, an output folder of another run, a diverged loss.
    """
    from model.run_state import begin, checkpoint_to_resume, claim_folder

    started, folder, is_first = time.perf_counter(), Path(str(config.output_dir)), config.process_index == 0
    resolved, settings = _settings(config)
    found = claim_folder(folder, settings)
    if found:
        return _skipped(found, started)
    text = yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True)
    if is_first:
        echo(text.rstrip())
    if config.dry_run:
        from model.train_plan import plan

        echo(plan(config))
        return None
    _check_processes(config)
    # A mistake that these find must not claim the folder.
    checkpoint, trainer = checkpoint_to_resume(folder, config.resume_from_checkpoint), make_trainer(config)
    if is_first:
        begin(folder, settings)
        atomic_write_text(folder / "config.yaml", text)
    done, restored = _fit(trainer, config, checkpoint)
    versions = package_versions("avdpo", "torch", "transformers", "peft", "accelerate")
    seconds = time.perf_counter() - started
    summary = StageSummary(STAGE, done, done, restored, 0, seconds, settings, versions)
    if is_first:
        summary.write(folder)
    return summary


def make_trainer(config: "TrainConfig") -> "FlowMatchingTrainer":
    """The trainer of the settings, with its data and its watchers."""
    from model.samples import SampleWriter
    from model.train_start import choose_trainable, open_clips, open_eval_clips, starting_network, trained_modalities
    from model.trainer import FlowMatchingTrainer

    network = starting_network(config)
    modalities = trained_modalities(network, config)
    trainer = FlowMatchingTrainer(
        choose_trainable(network, config),
        config,
        open_clips(config, modalities),
        eval_dataset=open_eval_clips(config, modalities),
    )
    if config.sample_prompts:
        trainer.add_callback(SampleWriter(trainer, config.model, config.sample_prompts, modalities, config.seed))
    return trainer


def _fit(trainer: "FlowMatchingTrainer", config: "TrainConfig", checkpoint: Path | None) -> tuple[int, int]:
    """Trains and saves; returns the number of steps, and how many of them a checkpoint gave."""
    from model.export import export_model
    from model.run_state import checkpoint_step

    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    export_model(trainer, config.model)
    trainer.save_state()
    return trainer.state.global_step, checkpoint_step(checkpoint) if checkpoint else 0


def _settings(config: "TrainConfig") -> tuple[dict[str, Any], dict[str, Any]]:
    """All settings, and those that decide the trained weights; how its processes are started belongs to neither."""
    from model.run_state import comparable
    from model.training_args import resolved_settings

    resolved = resolved_settings(config) | {"num_workers": 0}
    return resolved, comparable(resolved)


def _check_processes(config: "TrainConfig") -> None:
    """Processes that found no way to speak to each other would each train alone, into the same folder."""
    started = int(os.environ.get("WORLD_SIZE", 1))
    if config.world_size != started:
        raise ValueError(
            f"{started} processes were started (WORLD_SIZE), but they found {config.world_size} device(s) to train on "
            "together: on CPUs set use_cpu true, else start as many processes as there are GPUs."
        )


def _skipped(found: dict[str, Any], started: float) -> StageSummary:
    seconds = time.perf_counter() - started
    return StageSummary(STAGE, found["wanted"], found["done"], found["done"], 0, seconds, found["settings"], {})


if __name__ == "__main__":
    sys.exit(main())
