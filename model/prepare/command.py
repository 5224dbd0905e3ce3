"""The command that encodes clips: `python -m model.prepare --clips TABLE_OR_FOLDER --model NAME --output DIR`.

Each clip is cut to its bucket and encoded once by the model's codecs, and its caption by the model's text encoder.
Training then needs none of these. A killed run continues where it stopped; a finished one is not repeated.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from core.cli import StageSummary
from model.data.clip_table import fingerprint, read_clips
from model.prepare.config import PrepareConfig, RowSettings
from model.prepare.parts import CLIPS
from model.prepare.run import plan_line, run, run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0 on success, 1 with too many failed clips, 2 on a mistake, or 130 after Ctrl-C."""
    return run_command(PrepareConfig, plan, prepare, argv)


def prepare(config: PrepareConfig) -> StageSummary:
    """Write the dataset, its negative prompt, failures and summary into `config.output`, and print the summary.

    Raises:
        ValueError: no table or model, invalid buckets, no usable clip, a folder made with other settings, or one that
            another run holds.
    """
    return run(ClipWork(config), config)


def plan(config: PrepareConfig) -> list[str]:
    """Return the plan of a run, line by line: clips by bucket, unusable clips, and the number of clips left."""
    from model.prepare.rows import describe, open_dataset

    return [*describe(open_dataset(config.row_settings())), plan_line(ClipWork(config), config)]


class ClipWork:
    """Work on the clips of a table, one row each."""

    layout = CLIPS

    def __init__(self, config: PrepareConfig) -> None:
        self._config = config
        clips = read_clips(config.clips)
        self.num_rows = len(clips)
        self.settings = config.recorded | {"clips_fingerprint": fingerprint(clips, config.clips)}

    def count(self, rows: Iterable[int]) -> int:
        return len(list(rows))

    def encoder_settings(self) -> RowSettings:
        return self._config.row_settings()

    def check(self) -> None:
        """Do nothing: each clip is checked when it is read."""

    def decode(self) -> list[Path]:
        from model.prepare.check import decode_clips

        config = self._config
        return decode_clips(config.folder, config.model, config.torch_device, config.check, config.seed)


if __name__ == "__main__":
    sys.exit(main())
