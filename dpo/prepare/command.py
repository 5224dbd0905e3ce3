"""The command that encodes pairs: `python -m dpo.prepare --pairs DIR --model NAME --output DIR`.

Latents that the sampler kept are used as they are; other clips are encoded. Each caption is embedded once per prompt,
and each candidate is read once, even if several pairs contain it. Training then needs neither codec nor text encoder.
A killed run continues where it stopped; a finished one is not repeated.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from core.cli import StageSummary
from core.lineage import write_lineage
from core.storage import storage_path
from dpo.data.pairs import by_prompt, fingerprint, missing_files, pairs_lineage, read_pairs
from dpo.data.schema import COLUMNS, SIDES
from dpo.prepare.config import PairSettings, PrepareConfig
from model.prepare.parts import RowLayout
from model.prepare.run import plan_line, run, run_command

PAIRS = RowLayout("pair", COLUMNS, ("pair_id", "prompt_id", "reason"))
CHECK_SEED = 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0 on success, 1 with too many failed pairs, 2 on a mistake, or 130 after Ctrl-C."""
    return run_command(PrepareConfig, plan, prepare, argv)


def prepare(config: PrepareConfig) -> StageSummary:
    """Write the training dataset, its negative prompt, lineage, failures and summary into `config.output`.

    A pair that cannot be used (files that cannot be read, members of different shapes, values that are not finite) is a
    row of failures.parquet.

    Raises:
        ValueError: no pairs or none that can be used, more files missing than may fail, latents of another model, or a
            folder that holds the data of other pairs or of another model.
    """
    lineage = pairs_lineage(storage_path(config.pairs))
    summary = run(PairWork(config), config)
    write_lineage(config.folder, lineage)
    return summary


def plan(config: PrepareConfig) -> list[str]:
    """Return the plan of a run, line by line."""
    return [*PairWork(config).describe(), plan_line(PairWork(config), config)]


class PairWork:
    """Work on the pairs of a folder. Each row is a prompt, so that data shared by its pairs is encoded once."""

    layout = PAIRS

    def __init__(self, config: PrepareConfig) -> None:
        self._config = config
        self._root = storage_path(config.pairs)
        self._pairs = read_pairs(self._root)
        self._counts = [len(pairs) for pairs in by_prompt(self._pairs)]
        self.num_rows = len(self._counts)
        self.settings = {"model": config.model, "dtype": config.dtype, "pairs_fingerprint": fingerprint(self._pairs)}

    def count(self, rows: Iterable[int]) -> int:
        return sum(self._counts[row] for row in rows)

    def encoder_settings(self) -> PairSettings:
        return self._config.row_settings()

    def check(self) -> None:
        """Raise ValueError if more pairs lack files than may fail."""
        missing = [paths for paths in missing_files(self._root, self._pairs) if paths]
        if len(missing) > self._config.max_failed:
            files = list(dict.fromkeys(str(path) for paths in missing for path in paths))
            more = f" and {len(files) - 3} more" if len(files) > 3 else ""
            raise ValueError(
                f"{', '.join(files[:3])}{more} of {len(missing)} pairs in {self._root} do not exist: run the sampling "
                f"stage again, drop those pairs, or let so many fail by --max_failed {len(missing)}."
            )

    def describe(self) -> list[str]:
        """Return the numbers of pairs, prompts, clips to encode and pairs that lack files."""
        sides = [(pair, side) for pair in self._pairs for side in SIDES]
        kept = sum(bool(pair[f"{side}_latents_path"]) for pair, side in sides)
        encoded = {pair[f"{side}_candidate_id"] for pair, side in sides if not pair[f"{side}_latents_path"]}
        missing = sum(map(bool, missing_files(self._root, self._pairs)))
        return [
            f"{len(self._pairs)} pairs of {self.num_rows} prompts; {kept} of {len(sides)} members have the sampler's "
            f"latents, {len(encoded)} clips are encoded",
            *([f"{missing} pairs lack files"] if missing else []),
        ]

    def decode(self) -> list[Path]:
        from dpo.prepare.check import decode_pairs

        config = self._config
        return decode_pairs(config.folder, config.model, config.torch_device, config.check, CHECK_SEED)


if __name__ == "__main__":
    sys.exit(main())
