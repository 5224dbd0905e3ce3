"""The work of `python -m dpo.construct`: one row of the table per good clip. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from core.lineage import CONSTRUCTED, LINEAGE_NAME, Lineage, read_lineage
from dpo.construct.config import ConstructConfig, ConstructSettings
from dpo.construct.winners import Winners
from dpo.data.constructed_schema import REGIONAL_COLUMNS, SHIFT_COLUMNS
from dpo.data.schema import ENCODERS_NAME
from dpo.data.state import dataset_fingerprint
from model.prepare.parts import RowLayout
from model.prepare.run import SETTINGS_NAME
from model.presets import PRESETS

LAYOUTS = {
    "shift": RowLayout("pair", SHIFT_COLUMNS, ("pair_id", "prompt_id", "distortion_s", "reason")),
    "regional": RowLayout("pair", REGIONAL_COLUMNS, ("pair_id", "prompt_id", "reason")),
}
CHECK_SEED = 0


class ConstructWork:
    """Work on the clips of a prepared folder, each of which gives the pairs of all stages."""

    def __init__(self, config: ConstructConfig) -> None:
        """Open the clips.

        Raises:
            ValueError: the folder holds no clips with picture and sound.
        """
        self._config = config
        folder = Path(config.latents)
        self.winners = Winners(folder)
        self.layout = LAYOUTS[config.distortion]
        self.num_rows = len(self.winners)
        self.settings = config.recorded | {"latents_fingerprint": dataset_fingerprint(folder)}

    def count(self, rows: Iterable[int]) -> int:
        return len(list(rows)) * self._config.pairs_per_clip

    def encoder_settings(self) -> ConstructSettings:
        return self._config.row_settings()

    def check(self) -> None:
        """Raise ValueError if the codecs or the text encoder of another model made the clips."""
        from model.javisdit.weights.folders import encoders_identity

        made_by = _encoders(self.winners.folder)
        if made_by is not None and encoders_identity(self._config.model) != made_by[1]:
            raise ValueError(
                f"{self.winners.folder} was made by the codecs and the text encoder of {made_by[0]}, but "
                f"{self._config.model} has others: give that model, or one trained from it, as --model."
            )

    def lineage(self) -> Lineage:
        """Return the lineage of the pairs: rules made the losers, and rewards or people may have chosen the winners."""
        folder = self.winners.folder
        return read_lineage(folder).then(CONSTRUCTED) if (folder / LINEAGE_NAME).is_file() else CONSTRUCTED

    def decode(self) -> list[Path]:
        from dpo.data.dataset import PairDataset
        from dpo.prepare.check import decode_rows

        config = self._config
        dataset = PairDataset.load(config.folder)
        return decode_rows(dataset, config.model, config.torch_device, config.check, CHECK_SEED)


def _encoders(folder: Path) -> tuple[str, str] | None:
    """Return name and identity of the model whose codecs made a folder; None where it is not known."""
    path = folder / ENCODERS_NAME  # of dpo.prepare
    if path.is_file():
        made_by = json.loads(path.read_text(encoding="utf-8"))
        return made_by["model"], made_by["identity"]
    path = folder / SETTINGS_NAME  # of model.prepare
    model = json.loads(path.read_text(encoding="utf-8"))["model"] if path.is_file() else ""
    if model not in PRESETS and not Path(model or "missing").is_dir():
        return None
    from model.javisdit.weights.folders import encoders_identity

    return model, encoders_identity(model)
