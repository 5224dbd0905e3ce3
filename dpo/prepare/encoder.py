"""The encoder of prompts, shared by pairs and groups: it makes all dataset rows of a prompt at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.atomic import atomic_write_text
from core.storage import storage_path
from dpo.data.schema import ENCODERS_NAME
from dpo.prepare.candidates import CandidateLatents
from model.data.clip_encoder import ClipEncoder
from model.javisdit.pipeline import JointAVPipeline
from model.javisdit.weights.folders import encoders_identity, transformer_config
from model.prepare.parts import Parts, Row
from model.prepare.rows import write_negative_text


class PromptEncoder:
    """Makes parts of a training dataset. Tables and model are read when the first part is made."""

    def __init__(self, model: str, device: str, dtype: str) -> None:
        self.model = model
        self.device = device
        self.dtype = dtype

    def write_part(
        self,
        parts: Parts,
        start: int,
        given_up: Collection[int] = (),
        progress: Callable[[int], Any] = lambda _: None,
    ) -> None:
        """Make the rows of some prompts, one clip at a time, so that a clip's bits do not depend on other clips.

        Args:
            given_up: prompts at which processes have crashed; their rows are recorded as failures.

        Raises:
            ValueError: if the model cannot be used, or is not the one from which the clips were sampled.
        """
        write_negative_text(self.encoder, parts.folder)
        self.write_records(parts.folder)
        parts.make(start, self.rows, self.give_up, given_up, progress)

    def rows(self, prompt: int) -> list[Row]:
        """Return the rows of a prompt, encoded, or the reasons why they could not be."""
        raise NotImplementedError

    def give_up(self, prompt: int) -> list[Row]:
        """Return a failure for each row of a prompt."""
        raise NotImplementedError

    def write_records(self, folder: Path) -> None:
        """Write the files that describe the rows beside them, unless they exist."""
        identity = {"model": self.model, "identity": encoders_identity(self.model)}
        write_once(folder / ENCODERS_NAME, json.dumps(identity) + "\n")

    def candidates(self, root: str | Path) -> CandidateLatents:
        """Return the clips of one prompt as latents; paths are relative to `root`."""
        return CandidateLatents(storage_path(root), self.encoder.pipeline, self._channels)

    def text(self, prompt: str) -> Tensor:
        """Return the embedding (length, text_dim) of a caption."""
        return self.encoder.texts([prompt])[0]

    @cached_property
    def encoder(self) -> ClipEncoder:
        dtype = getattr(torch, self.dtype)
        return ClipEncoder(JointAVPipeline.from_pretrained(self.model, self.device, dtype))

    @cached_property
    def _channels(self) -> dict[str, int]:
        return {spec.name: spec.channels for spec in transformer_config(self.model).specs}


def write_once(path: Path, text: str) -> None:
    """Write a file unless it exists."""
    if not path.is_file():
        atomic_write_text(path, text)
