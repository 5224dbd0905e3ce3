"""The command that tests a distortion on a model: `python -m dpo.signal_test --model M --latents DIR --output DIR`.

A loser made by rule can be told from its winner in two ways: because picture and sound no longer agree, or by the mark
that the rule left on it. The test measures the velocity errors of winner and loser at shared noise and timestep, with
the clip's own partner modality and with that of unrelated clips. What remains with an unrelated partner is the mark.
The difference of the two is the sync signal, which preference training should act on. Writes signal.csv and
signal.json, by modality and noise level, with bootstrap intervals over clips and a verdict for each modality.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from core.atomic import atomic_write_text
from core.cli import config_to_yaml, echo, parse_config
from dpo.data.verdict import VERDICT_NAME, Verdict, write_verdicts
from dpo.signal_test.config import SignalConfig, SignalSettings
from jobs.stage import stopped_status

if TYPE_CHECKING:
    from dpo.signal_test.trials import Trial
    from model.javisdit.pipeline import JointAVPipeline

TABLE_NAME = "signal.csv"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0 on success, 2 on a mistake in the input, or 130 after Ctrl-C."""
    config = parse_config(SignalConfig, argv)
    echo(config_to_yaml(config))
    try:
        if config.dataset:
            test_dataset(Path(config.dataset), config.settings)
        else:
            _test_clips(config)
    except (ValueError, KeyboardInterrupt) as error:
        return stopped_status(error)
    return 0


def test_dataset(folder: Path, settings: SignalSettings) -> dict[str, Verdict]:
    """Test pairs of a constructed dataset, write table and verdicts into its folder, and return the verdicts.

    Raises:
        ValueError: no such dataset or model, or pairs whose members differ in both modalities.
    """
    from dpo.data.dataset import PairDataset
    from dpo.signal_test.trials import trials_of_dataset

    trials = trials_of_dataset(PairDataset.load(folder), settings.num_clips)
    return _test(trials, _pipeline(settings), settings, folder)


def _test_clips(config: SignalConfig) -> None:
    from dpo.construct.winners import Winners
    from dpo.signal_test.trials import trials_of_clips

    assert config.latents is not None
    assert config.output is not None
    pipeline, folder = _pipeline(config.settings), Path(config.output)
    trials = trials_of_clips(Winners(Path(config.latents)), pipeline, config.shifts, config.clips, folder)
    _test(trials, pipeline, config.settings, folder)


def _pipeline(settings: SignalSettings) -> JointAVPipeline:
    import torch

    from model.javisdit.pipeline import JointAVPipeline

    return JointAVPipeline.from_pretrained(settings.model, settings.device, getattr(torch, settings.dtype))


def _test(
    trials: Sequence[Trial], pipeline: JointAVPipeline, settings: SignalSettings, folder: Path
) -> dict[str, Verdict]:
    from dpo.signal_test.measure import measure_errors
    from dpo.signal_test.table import csv_text, flat, sentences, signal_rows, text_table, verdicts

    errors = measure_errors(pipeline.transformer, trials, settings.num_draws, settings.shift_scale, settings.seed)
    rows = signal_rows(errors, settings.seed)
    found, said = verdicts(rows), sentences(rows)
    atomic_write_text(folder / TABLE_NAME, csv_text(rows))
    details = {
        "sentences": said,
        "model": settings.model,
        "num_clips": len(set(errors.clips.tolist())),
        "num_draws": settings.num_draws,
        "table": [flat(row) for row in rows],
    }
    write_verdicts(folder, found, details)
    echo("\n".join([*text_table(rows), *said, f"signal test: {folder / VERDICT_NAME}"]))
    return found


if __name__ == "__main__":
    sys.exit(main())
