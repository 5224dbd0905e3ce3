"""The settings of `python -m evaluation.audit`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """Settings of `python -m evaluation.audit`."""

    run_dir: Path = field(
        metadata={"help": "output_dir of pipeline.run with candidates/ and scores/: several candidates per prompt."}
    )
    output: Path | None = field(
        default=None, metadata={"help": "Folder of audit.json and audit.csv; default <run_dir>/audit."}
    )
    columns: list[str] = field(
        default_factory=list,
        metadata={"help": "Score columns to audit: those that a training will use. Default: all with a direction."},
    )
    counters: bool = field(
        default=True,
        metadata={"help": "Measure counter-metrics, such as loudness and motion, from the clips, and correlate them."},
    )
    num_bootstrap: int = field(default=2000, metadata={"help": "Resamples of the prompts for the 95 % intervals."})
    seed: int = field(default=0, metadata={"help": "Seed of the resampling."})
    strict: bool = field(default=False, metadata={"help": "Exit with status 1 if there is any warning."})

    def __post_init__(self) -> None:
        """Check the values. Raises ValueError if one is out of range."""
        if self.num_bootstrap < 100:
            raise ValueError(
                f"num_bootstrap is {self.num_bootstrap}, too few for the 2.5 % and 97.5 % quantiles of an interval. "
                "Give at least 100; 2000 is the default."
            )

    @property
    def folder(self) -> Path:
        return self.run_dir / "audit" if self.output is None else self.output
