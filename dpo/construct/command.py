"""The command that makes pairs from good clips: `python -m dpo.construct --latents DIR --model NAME --output DIR`.

The winner is the clip as it is, bit for bit; a rule makes the loser from it, so nothing is sampled, scored or labelled
(SyncDPO's and LocalDPO's kinds of pairs). The result is a training dataset for `dpo.train` like that of `dpo.prepare`.

The losers are made once and stored, not drawn while training: the guards, the signal test and `--check` then look at
the very pairs that are trained on, and a regional loser costs too much to be made again in each epoch. The price is
the disk: each pair repeats the picture. The curriculum is a column, `stage`: each clip gives one pair per stage, and
`dpo.train --stage_epochs N` trains N epochs on each stage, coarse first. Batches remain a function of (seed, epoch), so
a resumed training makes the same steps.

A killed run continues where it stopped, and the same seed gives the same losers on any number of processes.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

from core.atomic import atomic_write_text
from core.cli import StageSummary, echo
from core.lineage import write_lineage
from core.stage_state import finished_summary
from dpo.construct.config import ConstructConfig
from dpo.construct.guards import GUARDS
from dpo.construct.work import ConstructWork
from dpo.data.schema import MODALITIES
from dpo.data.verdict import VERDICT_NAME, write_verdicts
from model.prepare.parts import FAILURES_NAME
from model.prepare.run import plan_line, run, run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0 on success, 1 with too many failed pairs, 2 on a mistake, or 130 after Ctrl-C."""
    return run_command(ConstructConfig, plan, construct, argv)


def construct(config: ConstructConfig) -> StageSummary:
    """Write the training dataset with lineage, failures, summary and verdict of the signal test into `config.output`.

    Pairs that a guard leaves out are rows of failures.parquet and counted by reason in the summary under `left_out`.
    The summary that is returned does not count them as failed.

    Raises:
        ValueError: no clips or none that can be used, latents of another model, or a folder that holds other data.
    """
    work = ConstructWork(config)
    summary = run(work, config)
    if finished_summary(config.folder) is None:
        return summary  # other shards make the rest
    write_lineage(config.folder, work.lineage())
    left_out = _record_left_out(config.folder)
    if config.distortion == "shift" and not (config.folder / VERDICT_NAME).is_file():
        _test_signal(config)
    return replace(summary, failed=summary.failed - left_out)


def plan(config: ConstructConfig) -> list[str]:
    """Return the plan of a run, line by line."""
    from dpo.construct.plan import describe

    work = ConstructWork(config)
    return [*describe(work.winners, config), plan_line(work, config)]


def _record_left_out(folder: Path) -> int:
    """Write the number of pairs that guards left out, by reason, into the summary; print and return their number."""
    reasons = Counter(pq.read_table(folder / FAILURES_NAME)["reason"].to_pylist())
    left_out = {reason: reasons[reason] for reason in GUARDS if reasons[reason]}
    summary = finished_summary(folder)
    if summary is not None and summary.get("left_out") != left_out:
        text = json.dumps(summary | {"left_out": left_out}, indent=2, ensure_ascii=False)
        atomic_write_text(folder / "summary.json", text + "\n")
    for reason, number in left_out.items():
        echo(f"construct: {number} of the failed pairs were left out by rule: {reason}")
    return sum(left_out.values())


def _test_signal(config: ConstructConfig) -> None:
    if config.signal_clips:
        from dpo.signal_test.command import test_dataset

        test_dataset(config.folder, config.signal_settings())
    else:
        write_verdicts(config.folder, dict.fromkeys(MODALITIES, "untested"), {"distortion": config.distortion})


if __name__ == "__main__":
    sys.exit(main())
