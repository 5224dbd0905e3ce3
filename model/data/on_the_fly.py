"""The dataset for training from media files: loader workers cut the clips, the training process encodes them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from media.clip import MediaError
from model.data.batches import RowKey
from model.data.buckets import Bucket
from model.data.clip_encoder import ClipEncoder
from model.data.clip_samples import ClipDataset, ClipForm, ClipSample
from model.data.latent_dataset import FlowCollator, LatentSample
from model.javisdit.network.config import JointDiTConfig
from model.javisdit.pipeline import JointAVPipeline

if TYPE_CHECKING:
    from model.train.config import TrainConfig

FAILURES_NAME = "failures.jsonl"


class OnTheFlyClips(torch.utils.data.Dataset[ClipSample]):
    """`TrainingClips` of media files. The label of a clip is its bucket of the epoch.

    A clip that cannot be read is written to a failures file and replaced by the next readable clip of the table in the
    same bucket: the same one in any process, before and after a restart.
    """

    def __init__(self, clips: ClipDataset, encoder: ClipEncoder, failures: Path) -> None:
        """Probe every clip whose length or size the table lacks.

        Args:
            clips: the table's clips and buckets.
            encoder: encoder of the trained model.
            failures: file for lines of clip_id, path and reason; existing lines are kept.
        """
        self.clips = clips
        self.encoder = encoder
        self.failures = failures
        self.negative_text: Tensor = encoder.negative_text()
        self._unusable = clips.probe_all()
        self._noted = _noted_clips(failures)
        self._labels: tuple[int, list[Bucket | None]] | None = None
        for row, error in self._unusable.items():
            self._note(row, error)

    @classmethod
    def open(cls, config: TrainConfig, modalities: Sequence[str]) -> OnTheFlyClips:
        """Open the clips of a training run; failures are written to its output folder.

        Raises:
            ValueError: no table, or invalid buckets.
        """
        assert config.clips is not None
        pipeline = JointAVPipeline.from_pretrained(config.model, device=config.device)
        form = ClipForm(config.fps, pipeline.defaults.sample_rate, "video" not in modalities, config.audio_fps)
        clips = ClipDataset.open(config.clips, config.buckets or {}, form, config.seed)
        return cls(clips, ClipEncoder(pipeline), Path(str(config.output_dir)) / FAILURES_NAME)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: RowKey) -> ClipSample:
        """Read the clip of a row, or its replacement.

        Raises:
            ValueError: no clip of its bucket can be read.
        """
        labels = self.labels(key.epoch)
        others = [*range(key.row, len(self)), *range(key.row)]
        for row in others:
            if labels[row] != labels[key.row]:
                continue
            try:
                return self.clips[RowKey(row, key.epoch)]
            except MediaError as error:
                self._note(row, error)
        raise ValueError(
            f"No clip in the bucket {labels[key.row]} can be read. {self.failures} lists the reasons: repair them, "
            "or give other clips."
        )

    def labels(self, epoch: int) -> Sequence[Bucket | None]:
        """Return the bucket of each clip in an epoch; None for an unusable clip, or one that no bucket accepts."""
        if self._labels is None or self._labels[0] != epoch:
            rows = range(len(self))
            found = [None if row in self._unusable else self.clips.bucket(row, epoch) for row in rows]
            self._labels = epoch, found
        return self._labels[1]

    def num_tokens(self, label: Any, config: JointDiTConfig) -> int:
        return config.num_tokens(self.encoder.latent_sizes(self.clips.table, label, self.clips.form))

    def batch_size(self, label: Any) -> int | None:
        return self.clips.table.rule(label).batch_size

    def collator(self, collate: FlowCollator) -> Callable[[list[Any]], Any]:
        return list  # a callable that other processes can import by name

    def encode(self, items: list[Any]) -> list[LatentSample]:
        return self.encoder(items)

    def check_network(self, config: JointDiTConfig) -> None:
        """Raise ValueError when codecs or text encoder do not fit the network."""
        channels = {spec.name: spec.channels for spec in config.specs} | {"text": config.text_dim}
        pipeline = self.encoder.pipeline
        found = {"audio": pipeline.audio_codec.latent_channels, "text": self.negative_text.shape[1]}
        if not self.clips.form.audio_only:
            found["video"] = pipeline.video_codec.latent_channels
        for name, value in found.items():
            if value != channels.get(name):
                raise ValueError(
                    f"The model's codecs give {value} {name} channels, the network expects "
                    f"{channels.get(name, 'none')}: they belong to different models; train from a whole model folder."
                )

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the encoder, which the loader's workers do not need."""
        return self.__dict__ | {"encoder": None}

    def _note(self, row: int, error: MediaError) -> None:
        clip = self.clips.clips[row]
        if clip.clip_id in self._noted:
            return
        self._noted.add(clip.clip_id)
        line = json.dumps({"clip_id": clip.clip_id, "path": str(clip.path), "reason": error.reason}, ensure_ascii=False)
        self.failures.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.failures, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, f"{line}\n".encode())  # in one call, so that lines of several processes do not mix
        finally:
            os.close(descriptor)


def _noted_clips(path: Path) -> set[str]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return {json.loads(line)["clip_id"] for line in lines if line.endswith("}")}
