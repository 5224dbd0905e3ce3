"""The command of training stages 1 and 2: `python -m model.train --config recipes/javisdit_pp/stage2_sft.yaml`.

Writes the trained model (a folder that generation, the next stage and preference training take as `--model`), the same
with averaged weights in `ema/`, `train_log.jsonl`, samples, checkpoints, `config.yaml` and, last, `summary.json` into
`output_dir`. A finished run is not repeated; `--resume_from_checkpoint latest` continues a killed one.
One process, `accelerate launch -m model.train ...` with a file of recipes/accelerate, or `--num_workers N` on Ray.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from core.cli import StageSummary, echo, parse_config
from core.lineage import Lineage
from core.training_help import training_help
from jobs.stops import StageStoppedError
from model.lineage import model_lineage
from model.train.run import Settings, TrainingCommand, all_settings
from model.train.settings import TrainSettings

if TYPE_CHECKING:
    from model.train.config import TrainConfig
    from model.train.trainer import FlowMatchingTrainer

ABOUT = "Trains a joint audio-video model by flow matching: audio pre-training, fine-tuning by LoRA or in full."


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0 on success, 2 on a mistake in the input."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(argv):
        echo(training_help(ABOUT, TrainSettings))
        return 0
    from model.train.config import TrainConfig

    try:
        config = parse_config(TrainConfig, argv)
        on_ray = config.num_workers and not config.dry_run
        summary = COMMAND.train_on_ray(config, argv) if on_ray else train(config)
    except (ValueError, StageStoppedError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    if summary is not None and config.process_index == 0:
        echo(summary.line())
    return 0


def run(argv: Sequence[str]) -> None:
    """Train in one of the processes that Ray Train starts, for which the driver holds the folder."""
    from model.train.config import TrainConfig

    COMMAND.train(parse_config(TrainConfig, [*argv, "--num_workers", "0"]), is_held=True)


def train(config: TrainConfig) -> StageSummary | None:
    """Train, write the model with its records, and return the summary; None after a dry run.

    Raises:
        ValueError: data that does not fit the model, an output folder of another run, a diverged loss.
    """
    return COMMAND.train(config)


def make_trainer(config: TrainConfig) -> FlowMatchingTrainer:
    """Return the trainer of the settings, with its data and callbacks."""
    from model.train.samples import SampleWriter
    from model.train.start import choose_trainable, open_clips, open_eval_clips, starting_network, trained_modalities
    from model.train.trainer import FlowMatchingTrainer

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


def _settings(config: TrainConfig) -> tuple[Settings, Settings]:
    from model.train.run_state import comparable

    resolved = all_settings(config)
    return resolved, comparable(resolved)


def _plan(config: TrainConfig) -> str:
    from model.train.plan import plan

    return plan(config)


def _lineage(config: TrainConfig) -> Lineage:
    """Return the lineage of the starting weights: flow matching on clips adds no preferences."""
    return model_lineage(config.model if config.video_backbone is None else config.video_backbone)


COMMAND = TrainingCommand("model.train", _settings, make_trainer, _plan, _lineage)


if __name__ == "__main__":
    sys.exit(main())
