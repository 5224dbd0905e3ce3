"""Audio-video clips in memory, and reading, writing and converting their files."""

from __future__ import annotations

from media.audio import read_wav, resample_audio, write_wav
from media.clip import AVClip, MediaError, MediaInfo
from media.convert import convert_clip
from media.read import probe, read_clip, read_sound
from media.write import write_clip

__all__ = [
    "AVClip",
    "MediaError",
    "MediaInfo",
    "convert_clip",
    "probe",
    "read_clip",
    "read_sound",
    "read_wav",
    "resample_audio",
    "write_clip",
    "write_wav",
]
