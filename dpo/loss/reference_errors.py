"""The reference's errors, computed once before training, so that full fine-tuning needs no second network in memory.

A pair's draws are a function of (seed, pair, epoch), so the reference's error at these draws is a fixed number. The
errors are stored in `<output_dir>/reference_errors/<identity>/`, one file per process, one line per pair and epoch,
each written as soon as it is computed: an interrupted computation continues where it stopped. The identity changes
with the network, the pairs and the draws, so stored errors are never used for another run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.atomic import atomic_write_text
from dpo.data.schema import MODALITIES

FOLDER_NAME = "reference_errors"
Key = tuple[str, int]  # pair_id, epoch
_PROBED_VALUES = 1024  # values of each parameter in the identity; any training changes them


class ReferenceErrors:
    """The reference's errors (winner, loser) per modality, for each pair at each epoch's draws."""

    def __init__(self, folder: Path, process_index: int = 0) -> None:
        """Read the errors that all processes have stored; this process appends to its own file."""
        self.folder = folder
        self.own_path = folder / f"process-{process_index}.jsonl"
        self._values: dict[Key, list[float]] = {}
        if self.own_path.is_file():  # drop a last line that an interrupted run left incomplete
            atomic_write_text(self.own_path, "".join(f"{line}\n" for line in _complete_lines(self.own_path)))
        self.read()

    def __len__(self) -> int:
        return len(self._values)

    def read(self) -> None:
        """Read the errors that all processes have written so far."""
        for path in sorted(self.folder.glob("process-*.jsonl")):
            for line in _complete_lines(path):
                row = json.loads(line)
                self._values[row["pair_id"], row["epoch"]] = row["errors"]

    def has(self, pair_ids: Sequence[str], epochs: Sequence[int]) -> bool:
        """Return true if the errors of all these pairs at these epochs are known."""
        return all(key in self._values for key in zip(pair_ids, epochs, strict=True))

    def add(self, pair_ids: Sequence[str], epochs: Sequence[int], errors: dict[str, Tensor]) -> None:
        """Store the errors of a batch, modality -> (2B,) with winners first, as far as they are not known yet."""
        columns = [half for name in MODALITIES for half in errors[name].float().cpu().chunk(2)]
        rows = torch.stack(columns, dim=1).tolist()  # (B, 4); JSON text keeps float32 exactly
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.own_path.open("a", encoding="utf-8") as file:
            for pair_id, epoch, row in zip(pair_ids, epochs, rows, strict=True):
                if (pair_id, epoch) not in self._values:
                    self._values[pair_id, epoch] = row
                    file.write(json.dumps({"pair_id": pair_id, "epoch": epoch, "errors": row}) + "\n")

    def errors(self, pair_ids: Sequence[str], epochs: Sequence[int], device: Any) -> dict[str, Tensor]:
        """Return the errors of a batch, modality -> (2B,) with winners first.

        Raises:
            ValueError: if the errors of a pair are not known.
        """
        missing = [key for key in zip(pair_ids, epochs, strict=True) if key not in self._values]
        if missing:
            raise ValueError(
                f"{self.folder} has no reference error of pair {missing[0][0]!r} in epoch {missing[0][1]}: all "
                "processes must share output_dir; put it on shared storage."
            )
        rows = torch.tensor([self._values[key] for key in zip(pair_ids, epochs, strict=True)], device=device)
        pairs = rows.view(-1, len(MODALITIES), 2)
        return {name: pairs[:, index].T.flatten() for index, name in enumerate(MODALITIES)}


@torch.no_grad()
def identity(network: nn.Module, *draws: Any) -> str:
    """Return twelve hex digits that change with a network's weights and with the settings of the draws."""
    digest = hashlib.blake2b(json.dumps(draws).encode(), digest_size=6)
    for name, parameter in network.named_parameters():
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        digest.update(parameter.flatten()[:_PROBED_VALUES].cpu().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _complete_lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n")[:-1]
