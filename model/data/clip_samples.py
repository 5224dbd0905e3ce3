"""The dataset of media files as training samples: clips cut to their bucket of the epoch, with the matching sound.

Two defects of the release are not reproduced: the window of a clip is a function of (seed, clip, epoch), while the
release repeats windows across workers; and a file of another frame rate is resampled to the model's when read, while
the release counts its frames at the model's rate and requires re-encoded files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from media.audio import fit_length
from media.clip import MediaError
from model.data.batches import RowKey
from model.data.buckets import SAMPLER_SEED, Bucket, BucketTable
from model.data.clip_table import Clip, Geometry, picture_geometry, read_clips, sound_frames
from model.data.draws import sample_seed
from model.data.video_file import VideoFile, read_sound
from model.data.windows import (
    AUDIO_FPS,
    audio_window,
    draw_audio_window,
    draw_window,
    num_clip_samples,
    num_window_samples,
    resize_crop,
)
from model.javisdit.network.sizes import PIXEL_MULTIPLE

SOUND_SIDE = 10_000  # pixels, for clips of sound alone: no bucket is too large, and clips of one length share one
NUM_PROBES = 8  # files probed in parallel
MIN_PROBES_SHOWN = 100  # fewer files need no progress bar


@dataclass(frozen=True)
class ClipForm:
    """Form of the samples, besides the bucket.

    Attributes:
        fps: frames per second of the model.
        sample_rate: Hz.
        audio_only: read no picture; a bucket's frames then last 1 / audio_fps seconds.
    """

    fps: float = 16.0
    sample_rate: int = 16_000
    audio_only: bool = False
    audio_fps: float = AUDIO_FPS

    @property
    def bucket_fps(self) -> float:
        """The frames per second of a bucket."""
        return self.audio_fps if self.audio_only else self.fps

    def num_samples(self, num_frames: int) -> int:
        """Return the number of sound samples for so many frames of a bucket."""
        if self.audio_only:
            return num_window_samples(num_frames, self.audio_fps, self.sample_rate)
        return round(num_frames / self.fps * self.sample_rate)


@dataclass(frozen=True, eq=False)
class ClipSample:
    """A clip cut for an epoch.

    Attributes:
        prompt: the caption; when sound is trained alone, the caption of the sound if there is one.
        video: float32 (T, H, W, 3) in [-1, 1]; None when sound is trained alone.
        waveform: float32 (samples,), as long as the picture.
        fps: frames per second of the bucket.
    """

    clip_id: str
    prompt: str
    epoch: int
    video: Tensor | None
    waveform: Tensor
    num_frames: int
    height: int
    width: int
    fps: float


class ClipDataset(torch.utils.data.Dataset[ClipSample]):
    """Clips indexed by `RowKey`: the row of the table, and the epoch that decides bucket and window."""

    def __init__(
        self, clips: Sequence[Clip], table: BucketTable, form: ClipForm | None = None, seed: int = SAMPLER_SEED
    ) -> None:
        self.clips = list(clips)
        self.table = table
        self.form = form or ClipForm()
        self.seed = seed
        self._geometries: dict[int, Geometry | MediaError] = {}

    @classmethod
    def open(cls, source: str | Path, buckets: Mapping[str, Any], form: ClipForm, seed: int) -> ClipDataset:
        """Open the clips of a table or folder, with buckets in the form of the recipes.

        Sizes are rounded up to whole patches, except when sound is trained alone, as published.

        Raises:
            ValueError: no table, or invalid buckets.
        """
        table = BucketTable.from_dict(buckets, 1 if form.audio_only else PIXEL_MULTIPLE)
        return cls(read_clips(source), table, form, seed)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: RowKey) -> ClipSample:
        """Read a clip.

        Raises:
            MediaError: the file or row cannot be used, or no bucket accepts the clip in this epoch.
        """
        try:
            return self._sample(key)
        except MediaError:
            raise
        # Boundary to files and decoders that are not ours: one bad clip must not stop a run over millions.
        except Exception as error:
            raise MediaError(self.clips[key.row].path, f"cannot be read: {type(error).__name__}: {error}") from error

    def _sample(self, key: RowKey) -> ClipSample:
        clip, bucket = self.clips[key.row], self.bucket(*key)
        if bucket is None:
            raise MediaError(clip.path, self._not_taken(self.geometry(key.row)))
        rng = np.random.default_rng(sample_seed(self.seed, clip.clip_id, key.epoch))
        height, width = self.table.size(bucket)
        video, sound = (self._read_sound if self.form.audio_only else self._read)(clip, bucket, rng)
        prompt = clip.audio_prompt if self.form.audio_only and clip.audio_prompt else clip.prompt
        return ClipSample(
            clip_id=clip.clip_id,
            prompt=prompt,
            epoch=key.epoch,
            video=None if video is None else resize_crop(video, height, width),
            waveform=torch.from_numpy(sound),
            num_frames=bucket.num_frames,
            height=height,
            width=width,
            fps=self.form.bucket_fps,
        )

    def bucket(self, row: int, epoch: int) -> Bucket | None:
        """Return the bucket that accepts a clip in an epoch, or None.

        Raises:
            MediaError: the row or its file cannot be used.
        """
        return self.table.assign(*self.geometry(row), self.table.row_seed(self.clips[row].row, epoch, self.seed))

    def geometry(self, row: int) -> Geometry:
        """Return length and size of a clip, probed once.

        Raises:
            MediaError: the row or its file cannot be used.
        """
        if row not in self._geometries:
            self._geometries[row] = self._find_geometry(self.clips[row])
        found = self._geometries[row]
        if isinstance(found, MediaError):
            raise found
        return found

    def probe_all(self) -> dict[int, MediaError]:
        """Probe every clip's length and size; return the rows that cannot be used with their errors."""
        left = [row for row in range(len(self)) if row not in self._geometries]
        with ThreadPoolExecutor(NUM_PROBES) as pool:
            found = pool.map(self._find_geometry, [self.clips[row] for row in left])
            bar = tqdm(found, "probe", len(left), unit="clip", disable=len(left) < MIN_PROBES_SHOWN)
            self._geometries |= zip(left, bar, strict=True)
        return {row: found for row, found in self._geometries.items() if isinstance(found, MediaError)}

    def _find_geometry(self, clip: Clip) -> Geometry | MediaError:
        if clip.problem is not None:
            return MediaError(clip.path, clip.problem)
        try:
            if self.form.audio_only:
                return Geometry(sound_frames(clip, self.form.audio_fps), SOUND_SIDE, SOUND_SIDE)
            return picture_geometry(clip, self.form.fps)
        except MediaError as error:
            return error

    def _read(self, clip: Clip, bucket: Bucket, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Read frames uint8 (T, H, W, 3) of a window drawn by `rng`, in the file's size, and their sound (samples,)."""
        assert clip.video_path is not None
        fps, rate = self.form.fps, self.form.sample_rate
        file = VideoFile(clip.video_path, fps)
        try:
            window = draw_window(file.num_frames, bucket.num_frames, rng)
        except ValueError as error:
            raise MediaError(
                clip.path,
                f"{error} The table's num_frames are wrong, or count at another rate than the model's and lack a "
                "column fps: correct them, or leave them empty to be probed.",
            ) from error
        end_s = window.end / fps
        sound = read_sound(clip.audio_path, rate, end_s) if clip.audio_path else file.sound(rate, end_s)
        heard = audio_window(window, file.num_frames, num_clip_samples(file.num_frames, fps, rate))
        # Padded with zeros where the sound ends before the picture, as published.
        cut = fit_length(sound[None, heard.start : heard.end], self.form.num_samples(bucket.num_frames))[0]
        return file.frames(window.start, bucket.num_frames), cut

    def _read_sound(self, clip: Clip, bucket: Bucket, rng: np.random.Generator) -> tuple[None, np.ndarray]:
        """Read a window of sound (samples,) drawn by `rng`."""
        path = clip.audio_path or clip.video_path
        assert path is not None
        sound = read_sound(path, self.form.sample_rate)
        window = draw_audio_window(len(sound), bucket.num_frames, rng, self.form.audio_fps, self.form.sample_rate)
        return None, sound[window.start : window.end].copy()

    def _not_taken(self, geometry: Geometry) -> str:
        length = f"{geometry.num_frames} frames at {self.form.bucket_fps:g} fps"
        size = "" if self.form.audio_only else f" of {geometry.height}x{geometry.width} pixels"
        return f"has {length}{size}, which no bucket takes (too short or too small for all, or not drawn)"
