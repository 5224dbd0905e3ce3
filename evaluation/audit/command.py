"""Audit the rewards of a run before training on them.

    python -m evaluation.audit runs/first
    python -m evaluation.audit runs/first --columns visual_quality ib_tv audio_quality ib_ta ib_av desync --strict true

Prints failures, ties, variance and head-room of each reward, correlations within prompts with the other rewards and
with counter-metrics, and a warning for each finding; writes audit.json and audit.csv.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from core.cli import atomic_write_text, config_to_dict, echo, parse_config
from evaluation.audit.config import AuditConfig
from evaluation.audit.figures import audit
from evaluation.audit.input import read_scores
from evaluation.audit.render import audit_csv, audit_json, audit_text

if TYPE_CHECKING:
    import pandas as pd

ABOUT = (
    "Checks the scores of several candidates per prompt before a training: failures, ties, correlations within prompts "
    "with other rewards and with counter-metrics. Exit status: 0, 1 with --strict true and warnings, 2 on a mistake."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the audit and write audit.json and audit.csv.

    Returns 0, 1 under `strict` with warnings, or 2 when the tables cannot be audited.
    """
    config = parse_config(AuditConfig, argv, positional="run_dir", about=ABOUT)
    try:
        scores, columns, notes = read_scores(config.run_dir, config.columns)
        counters, more = _counters(config)
        notes += more
        result = audit(scores, columns, counters=counters, num_bootstrap=config.num_bootstrap, seed=config.seed)
    except ValueError as error:
        sys.stderr.write(f"evaluation.audit: error: {error}\n")
        return 2
    echo(audit_text(result, f"Audit of {config.run_dir}", notes))
    atomic_write_text(config.folder / "audit.json", audit_json(result, config_to_dict(config), notes))
    atomic_write_text(config.folder / "audit.csv", audit_csv(result))
    echo(f"written: {config.folder / 'audit.json'}, audit.csv")
    return 1 if config.strict and result.warnings else 0


def _counters(config: AuditConfig) -> tuple[pd.DataFrame | None, list[str]]:
    """Return the counter-metrics of the run, and notes on them; None without clips."""
    if not config.counters:
        return None, []
    from evaluation.counters.table import read_counters  # late: scipy

    found = read_counters(config.run_dir)
    if found.values.empty:
        return None, ["no counter-metrics, because the clips are not there"]
    return found.values, list(found.notes)


if __name__ == "__main__":
    sys.exit(main())
