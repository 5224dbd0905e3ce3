"""Encoding of pairs as rows of the training dataset, prompt by prompt."""

from __future__ import annotations

from functools import cached_property

from torch import Tensor

from core.storage import storage_path
from dpo.data.pairs import GEOMETRY, PairRow, by_prompt, read_pairs
from dpo.data.schema import MODALITIES, SIDES
from dpo.prepare.candidates import SHAPE_NAMES, shape_of
from dpo.prepare.config import PairSettings
from dpo.prepare.encoder import PromptEncoder
from media.clip import MediaError
from model.javisdit.codecs.latents import AVLatents
from model.prepare.parts import DIED, Row
from model.prepare.rows import flat, not_finite, text_columns


class PairEncoder(PromptEncoder):
    """Makes parts of a dataset of pairs."""

    def __init__(self, settings: PairSettings) -> None:
        super().__init__(settings.model, settings.device, settings.dtype)
        self._root = settings.pairs

    def rows(self, prompt: int) -> list[Row]:
        """Return the rows of a prompt: its pairs, encoded, or the reasons why they could not be."""
        latents_of = self.candidates(self._root)
        texts: dict[str, Tensor] = {}  # one, unless the pairs of a prompt have different texts
        rows = []
        for pair in self._prompts[prompt]:
            try:
                chosen, rejected = (latents_of(pair, f"{side}_") for side in SIDES)
                _check_same_shape(chosen, rejected)
            except MediaError as error:
                rows.append(_failure(pair, str(error)))
                continue
            if pair["prompt"] not in texts:
                texts[pair["prompt"]] = self.text(pair["prompt"])
            rows.append(_row(pair, chosen, rejected, texts[pair["prompt"]]))
        return rows

    def give_up(self, prompt: int) -> list[Row]:
        return [_failure(pair, DIED) for pair in self._prompts[prompt]]

    @cached_property
    def _prompts(self) -> list[list[PairRow]]:
        return by_prompt(read_pairs(storage_path(self._root)))


def _row(pair: PairRow, chosen: AVLatents, rejected: AVLatents, text: Tensor) -> Row:
    row: Row = {name: pair[name] for name in ("pair_id", "prompt_id", "prompt", "margin")} | text_columns(text)
    for name in MODALITIES:
        row[f"{name}_latents_shape"] = list(getattr(chosen, name).shape)
        for side, latents in zip(SIDES, (chosen, rejected), strict=True):
            row[f"{side}_{name}_latents"] = flat(getattr(latents, name))
    row |= {name: getattr(chosen, name) for name in GEOMETRY}
    broken = not_finite(row)
    return _failure(pair, f"its {broken} are not finite in float16") if broken else row


def _check_same_shape(chosen: AVLatents, rejected: AVLatents) -> None:
    for name, one, other in zip(SHAPE_NAMES, shape_of(chosen), shape_of(rejected), strict=True):
        if one != other:
            raise MediaError(
                None,
                f"the chosen clip has {name} {one}, the rejected one {other}; noise and crop could not be shared. "
                "Bring ground truth to the candidates' geometry in the sampling stage",
            )


def _failure(pair: PairRow, reason: str) -> Row:
    return {"pair_id": pair["pair_id"], "prompt_id": pair["prompt_id"], "reason": reason}
