"""The command that encodes training data: `python -m dpo.prepare --pairs DIR | --groups RUN --model NAME --output DIR`.

Latents that the sampler kept are used as they are; other clips are encoded. Each caption is embedded once per prompt,
and each candidate is read once, even if several pairs contain it. Training then needs neither codec nor text encoder.
A killed run continues where it stopped; a finished one is not repeated.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from core.cli import StageSummary, echo
from core.lineage import write_lineage
from dpo.prepare.config import PrepareConfig
from dpo.prepare.work import work_of
from model.prepare.run import plan_line, run, run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0 on success, 1 with too many failed rows, 2 on a mistake, or 130 after Ctrl-C."""
    return run_command(PrepareConfig, plan, prepare, argv)


def prepare(config: PrepareConfig) -> StageSummary:
    """Write the training dataset, its negative prompt, lineage, failures and summary into `config.output`.

    A pair or candidate that cannot be used (files that cannot be read, members of different shapes, values that are
    not finite) is a row of failures.parquet.

    Raises:
        ValueError: no pairs, groups or rewards, or none that can be used, more files missing than may fail, latents of
            another model, or a folder that holds other data or that of another model.
    """
    work = work_of(config)
    summary = run(work, config)
    write_lineage(config.folder, work.lineage)
    for note in work.notes:
        echo(f"prepare: {note}")
    return summary


def plan(config: PrepareConfig) -> list[str]:
    """Return the plan of a run, line by line."""
    work = work_of(config)
    return [*work.describe(), plan_line(work, config)]


if __name__ == "__main__":
    sys.exit(main())
