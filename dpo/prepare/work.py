"""The work of `python -m dpo.prepare`: pairs or groups, prompt by prompt. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from core.lineage import Lineage
from core.storage import storage_path
from dpo.data.groups import Groups, read_groups, small_groups
from dpo.data.pairs import by_prompt, fingerprint, missing_files, pairs_lineage, read_pairs
from dpo.data.schema import COLUMNS, GROUP_COLUMNS, SIDES
from dpo.prepare.config import GroupSettings, PairSettings, PrepareConfig
from model.prepare.parts import RowLayout
from model.prepare.run import Work

PAIRS = RowLayout("pair", COLUMNS, ("pair_id", "prompt_id", "reason"))
CHECK_SEED = 0


class PromptWork(Work, Protocol):
    """Work whose rows are prompts, so that data shared by the clips of a prompt is encoded once."""

    lineage: Lineage  # of the preferences in the data
    notes: list[str]  # for the plan and the end of a run

    def describe(self) -> list[str]:
        """Return the numbers of items, prompts, clips to encode and items that lack files."""


def work_of(config: PrepareConfig) -> PromptWork:
    """Return the work on the pairs or the groups of the settings."""
    return GroupWork(config) if config.groups else PairWork(config)


class PairWork:
    """Work on the pairs of a folder."""

    layout = PAIRS

    def __init__(self, config: PrepareConfig) -> None:
        self._config = config
        self._root = storage_path(config.pairs)
        self._pairs = read_pairs(self._root)
        self._counts = [len(pairs) for pairs in by_prompt(self._pairs)]
        self.lineage = pairs_lineage(self._root)
        self.notes: list[str] = []
        self.num_rows = len(self._counts)
        self.settings: dict[str, Any] = {
            "model": config.model,
            "dtype": config.dtype,
            "pairs_fingerprint": fingerprint(self._pairs),
        }

    def count(self, rows: Iterable[int]) -> int:
        return sum(self._counts[row] for row in rows)

    def encoder_settings(self) -> PairSettings | GroupSettings:
        return self._config.row_settings()

    def check(self) -> None:
        """Raise ValueError if more pairs lack files than may fail."""
        _refuse_missing(missing_files(self._root, self._pairs), self._config.max_failed, "pairs", self._root)

    def describe(self) -> list[str]:
        sides = [(pair, side) for pair in self._pairs for side in SIDES]
        kept = sum(bool(pair[f"{side}_latents_path"]) for pair, side in sides)
        encoded = {pair[f"{side}_candidate_id"] for pair, side in sides if not pair[f"{side}_latents_path"]}
        return [
            f"{len(self._pairs)} pairs of {self.num_rows} prompts; {kept} of {len(sides)} members have the sampler's "
            f"latents, {len(encoded)} clips are encoded",
            *_lacking(missing_files(self._root, self._pairs), "pairs"),
        ]

    def decode(self) -> list[Path]:
        from dpo.data.dataset import PairDataset
        from dpo.prepare.check import decode_rows

        config, dataset = self._config, PairDataset.load(self._config.folder)
        return decode_rows(dataset, config.model, config.torch_device, config.check, CHECK_SEED)


class GroupWork:
    """Work on the groups of scored candidates in the folder of a run."""

    def __init__(self, config: PrepareConfig) -> None:
        self._config = config
        self._root = storage_path(config.groups)
        self._found: Groups = read_groups(self._root, config.ground_truth)
        self._rows = [row for group in self._found.groups for row in group]
        columns = GROUP_COLUMNS | dict.fromkeys(self._found.rewards, "float64")
        self.layout = RowLayout("candidate", columns, ("candidate_id", "prompt_id", "reason"))
        self.lineage = self._found.lineage
        self.notes = self._left_out() + small_groups(self._found.groups)
        self.num_rows = len(self._found.groups)
        self.settings: dict[str, Any] = {
            "model": config.model,
            "dtype": config.dtype,
            "ground_truth": config.ground_truth,
            "groups_fingerprint": self._found.fingerprint(),
        }

    def count(self, rows: Iterable[int]) -> int:
        return sum(len(self._found.groups[row]) for row in rows)

    def encoder_settings(self) -> PairSettings | GroupSettings:
        return self._config.row_settings()

    def check(self) -> None:
        """Raise ValueError if more candidates lack files than may fail."""
        _refuse_missing(self._missing(), self._config.max_failed, "candidates", self._root)

    def describe(self) -> list[str]:
        kept = sum(bool(row["latents_path"]) for row in self._rows)
        return [
            f"{len(self._rows)} candidates of {self.num_rows} prompts; {kept} have the sampler's latents, "
            f"{len(self._rows) - kept} clips are encoded",
            f"rewards: {', '.join(self._found.rewards)}",
            *_lacking(self._missing(), "candidates"),
            *self.notes,
        ]

    def decode(self) -> list[Path]:
        from dpo.data.group_dataset import GroupDataset
        from dpo.prepare.check import decode_rows

        config, dataset = self._config, GroupDataset.load(self._config.folder)
        return decode_rows(dataset, config.model, config.torch_device, config.check, CHECK_SEED)

    def _left_out(self) -> list[str]:
        counts = {"prompts with a single candidate": self._found.num_alone, "failed clips": self._found.num_failed}
        return [f"left out: {number} {what}" for what, number in counts.items() if number]

    def _missing(self) -> list[list[Path]]:
        return missing_files(self._root / "candidates", self._rows, ("",))


def _lacking(missing: Sequence[Sequence[Path]], items: str) -> list[str]:
    count = sum(map(bool, missing))
    return [f"{count} {items} lack files"] if count else []


def _refuse_missing(missing: Sequence[Sequence[Path]], max_failed: int, items: str, root: Path) -> None:
    lacking = [paths for paths in missing if paths]
    if len(lacking) <= max_failed:
        return
    files = list(dict.fromkeys(str(path) for paths in lacking for path in paths))
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    raise ValueError(
        f"{', '.join(files[:3])}{more} of {len(lacking)} {items} in {root} do not exist: run the sampling stage again, "
        f"drop those {items}, or let so many fail by --max_failed {len(lacking)}."
    )
