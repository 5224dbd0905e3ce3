"""Encoding of pairs as rows of the training dataset, prompt by prompt."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from core.atomic import atomic_write_text
from core.storage import local_copy, storage_path
from dpo.data.pairs import GEOMETRY, PairRow, by_prompt, candidate_files, read_pairs
from dpo.data.schema import ENCODERS_NAME, MODALITIES, SIDES
from dpo.prepare.config import PairSettings
from media.clip import MediaError
from media.read import read_clip
from model.data.clip_encoder import ClipEncoder
from model.javisdit.codecs.latents import AVLatents
from model.javisdit.pipeline import JointAVPipeline
from model.javisdit.weights.folders import encoders_identity, transformer_config
from model.prepare.parts import DIED, Parts, Row
from model.prepare.rows import flat, not_finite, text_columns, write_negative_text


class PairEncoder:
    """Makes parts of the training dataset. Pairs and model are read when the first part is made."""

    def __init__(self, settings: PairSettings) -> None:
        self.settings = settings

    def write_part(
        self,
        parts: Parts,
        start: int,
        given_up: Collection[int] = (),
        progress: Callable[[int], Any] = lambda _: None,
    ) -> None:
        """Make the rows of some prompts, one clip at a time, so that a clip's bits do not depend on other clips.

        Args:
            given_up: prompts at which processes have crashed; their pairs are recorded as failures.

        Raises:
            ValueError: if the model cannot be used, or is not the one from which the pairs were sampled.
        """
        write_negative_text(self.encoder, parts.folder)
        self._write_encoders(parts.folder / ENCODERS_NAME)
        parts.make(start, self.rows, self._give_up, given_up, progress)

    def rows(self, prompt: int) -> list[Row]:
        """Return the rows of a prompt: its pairs, encoded, or the reasons why they could not be."""
        candidates = _Candidates(storage_path(self.settings.pairs), self.encoder.pipeline, self._channels)
        texts: dict[str, Tensor] = {}  # one, unless the pairs of a prompt have different texts
        rows = []
        for pair in self._prompts[prompt]:
            try:
                chosen, rejected = (candidates.latents(pair, side) for side in SIDES)
                _check_same_shape(chosen, rejected)
            except MediaError as error:
                rows.append(_failure(pair, str(error)))
                continue
            if pair["prompt"] not in texts:
                [texts[pair["prompt"]]] = self.encoder.texts([pair["prompt"]])
            rows.append(_row(pair, chosen, rejected, texts[pair["prompt"]]))
        return rows

    @cached_property
    def encoder(self) -> ClipEncoder:
        dtype = getattr(torch, self.settings.dtype)
        return ClipEncoder(JointAVPipeline.from_pretrained(self.settings.model, self.settings.device, dtype))

    @cached_property
    def _prompts(self) -> list[list[PairRow]]:
        return by_prompt(read_pairs(storage_path(self.settings.pairs)))

    @cached_property
    def _channels(self) -> dict[str, int]:
        return {spec.name: spec.channels for spec in transformer_config(self.settings.model).specs}

    def _write_encoders(self, path: Path) -> None:
        if not path.is_file():
            model = self.settings.model
            atomic_write_text(path, json.dumps({"model": model, "identity": encoders_identity(model)}) + "\n")

    def _give_up(self, prompt: int) -> list[Row]:
        return [_failure(pair, DIED) for pair in self._prompts[prompt]]


class _Candidates:
    """The clips of one prompt as latents; each clip is read or encoded only once."""

    def __init__(self, root: Path, pipeline: JointAVPipeline, channels: dict[str, int]) -> None:
        self._root = root
        self._pipeline = pipeline
        self._channels = channels
        self._found: dict[Any, AVLatents | MediaError] = {}

    def latents(self, pair: PairRow, side: str) -> AVLatents:
        """Return the latents of one side of a pair.

        Raises:
            MediaError: if the clip cannot be used; every pair with this clip gets the same error.
        """
        path, sound = candidate_files(self._root, pair, side)
        geometry = {name: pair[name] for name in GEOMETRY}
        is_kept = bool(pair[f"{side}_latents_path"])
        key = path if is_kept else (path, sound, *geometry.values())
        if key not in self._found:
            try:
                self._found[key] = self._load(path) if is_kept else self._encode(path, sound, geometry)
            except MediaError as error:
                self._found[key] = error
        found = self._found[key]
        if isinstance(found, MediaError):
            raise found
        return found

    def _load(self, path: Path) -> AVLatents:
        try:
            with local_copy(path) as file:
                latents = AVLatents.load(file)
        except (SafetensorError, OSError, KeyError, TypeError) as error:
            raise MediaError(path, f"holds no latents of the sampler ({error})") from error
        self._check(path, latents)
        return latents

    def _encode(self, path: Path, sound: Path | None, geometry: dict[str, Any]) -> AVLatents:
        rate = self._pipeline.defaults.sample_rate
        clip = read_clip(path, audio_path=sound, sample_rate=rate, num_channels=1, **geometry)
        if not clip.num_samples:
            raise MediaError(path, "has no sound")
        return self._pipeline.encode_clips([clip])[0]

    def _check(self, path: Path, latents: AVLatents) -> None:
        for name, channels in self._channels.items():
            values = getattr(latents, name)
            if not values.numel():
                raise MediaError(path, f"has no {name} latents")
            if len(values) != channels:
                raise ValueError(
                    f"{path} has {len(values)} {name} channels, but the model works on {channels}: the pairs were "
                    "sampled from another model; give that one, or one trained from it, as --model."
                )
            if not torch.isfinite(values).all():
                raise MediaError(path, f"has {name} latents that are not finite and would turn the model into NaN")


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
    for name in (*MODALITIES, "num_frames", "height", "width"):
        one, other = getattr(chosen, name), getattr(rejected, name)
        if name in MODALITIES:
            one, other = tuple(one.shape), tuple(other.shape)
        if one != other:
            raise MediaError(
                None,
                f"the chosen clip has {name} {one}, the rejected one {other}; noise and crop could not be shared. "
                "Bring ground truth to the candidates' geometry in the sampling stage",
            )


def _failure(pair: PairRow, reason: str) -> Row:
    return {"pair_id": pair["pair_id"], "prompt_id": pair["prompt_id"], "reason": reason}
