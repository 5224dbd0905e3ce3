"""Sound: wav files, sampling rates and channels. Arrays are float32 (channels, samples) in [-1, 1]."""

from __future__ import annotations

import struct
from math import gcd
from pathlib import Path
from typing import Literal

import numpy as np

from core.atomic import atomic_path
from core.storage import storage_path
from media.clip import MediaError

SampleFormat = Literal["uint8", "int16", "int24", "int32", "float32"]

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE  # format tags of the "fmt " chunk
UNKNOWN_SIZE = 0xFFFFFFFF  # written by programs that stream to a pipe: the data extends to the end of the file
CENTRE_GAIN = 0.7071  # -3 dB, the usual gain of a centre or surround channel in a stereo mix


def read_wav(path: str | Path) -> tuple[np.ndarray, int]:
    """Read a wav file and return its audio, float32 (channels, samples) in [-1, 1], and its sampling rate in Hz.

    Supports 8, 16, 24 and 32-bit integers, 32 and 64-bit floats, plain or WAVE_FORMAT_EXTENSIBLE. Integers of n bits
    are divided by 2^(n-1); floats outside [-1, 1] are clipped.
    Raises MediaError for a missing, truncated, empty or unsupported file.
    """
    try:
        content = storage_path(path).read_bytes()
    except OSError as error:
        raise MediaError(path, f"cannot be read: {error.strerror or error}") from error
    fmt, data = _riff_chunks(path, content)
    if len(fmt) < 16:
        raise MediaError(path, f"has a format chunk of {len(fmt)} bytes where a wav file has at least 16")
    tag, num_channels, sample_rate, _, block_size, bits = struct.unpack("<HHIIHH", fmt[:16])
    if tag == EXTENSIBLE and len(fmt) >= 26:
        tag = struct.unpack("<H", fmt[24:26])[0]  # the sub-format identifier starts with the plain format tag
    if num_channels < 1 or sample_rate < 1 or block_size != num_channels * ((bits + 7) // 8):
        raise MediaError(path, f"is damaged: {num_channels} channels, {sample_rate} Hz, blocks of {block_size} bytes")
    data = data[: len(data) // block_size * block_size]
    if not data:
        raise MediaError(path, "holds no samples")
    samples = _to_float(path, data, tag, bits)
    if not np.isfinite(samples).all():
        raise MediaError(path, "holds samples that are not finite numbers")
    audio = np.clip(samples.reshape(-1, num_channels).T, -1.0, 1.0)
    return np.ascontiguousarray(audio, dtype=np.float32), sample_rate


def write_wav(
    path: str | Path, audio: np.ndarray, sample_rate: int, *, sample_format: SampleFormat = "float32"
) -> None:
    """Write audio float32 (channels, samples) in [-1, 1] to a wav file atomically.

    float32 is lossless; the integer formats round to steps of 2^(1-bits), and 1.0 becomes the largest integer.
    Raises ValueError for audio that is empty or not two-dimensional, or a rate that is not positive.
    """
    if audio.ndim != 2 or 0 in audio.shape or sample_rate < 1:
        raise ValueError(
            f"write_wav was given audio of shape {audio.shape} at {sample_rate} Hz: give (channels, samples) with at "
            "least one of each, and a positive rate."
        )
    tag = FLOAT if sample_format == "float32" else PCM
    data, width = _from_float(np.ascontiguousarray(audio.T), sample_format)
    block = width * audio.shape[0]
    fmt = struct.pack("<HHIIHH", tag, audio.shape[0], sample_rate, sample_rate * block, block, width * 8)
    chunks = b"WAVE" + _chunk(b"fmt ", fmt)
    if tag == FLOAT:
        chunks += _chunk(b"fact", struct.pack("<I", audio.shape[1]))  # required for every format except PCM
    with atomic_path(path) as temporary:
        temporary.write_bytes(_chunk(b"RIFF", chunks + _chunk(b"data", data)))


def resample_audio(audio: np.ndarray, sample_rate: int, new_sample_rate: int) -> np.ndarray:
    """Resample audio (channels, samples) to a new rate in Hz; the length becomes round(n * new / old).

    The polyphase filter has zero phase: sample 0 keeps its time and nothing is delayed. Frequencies above the new
    Nyquist frequency are removed. Raises ValueError for a rate that is not positive.
    """
    if sample_rate < 1 or new_sample_rate < 1:
        raise ValueError(f"Cannot resample from {sample_rate} Hz to {new_sample_rate} Hz: give positive rates.")
    if sample_rate == new_sample_rate:
        return audio
    from scipy.signal import resample_poly  # imported late: this import takes longer than the rest of the package

    divisor = gcd(sample_rate, new_sample_rate)
    up, down = new_sample_rate // divisor, sample_rate // divisor
    length = max(1, round(audio.shape[1] * new_sample_rate / sample_rate))
    resampled = resample_poly(audio.astype(np.float64), up, down, axis=1)[:, :length]
    return np.clip(resampled, -1.0, 1.0).astype(np.float32)  # the filter overshoots slightly at steep edges


def mix_channels(audio: np.ndarray, num_channels: int) -> np.ndarray:
    """Mix audio (channels, samples) to mono (the mean) or stereo, or repeat a mono channel `num_channels` times.

    Raises ValueError for any other conversion.
    """
    have = audio.shape[0]
    if num_channels == have:
        return audio
    if num_channels == 1:
        return audio.mean(axis=0, keepdims=True, dtype=np.float32)
    if have == 1:
        return np.repeat(audio, num_channels, axis=0)
    if num_channels == 2:
        rest = audio[2:].mean(axis=0, keepdims=True)
        return ((audio[:2] + CENTRE_GAIN * rest) / (1 + CENTRE_GAIN)).astype(np.float32)
    raise ValueError(f"Cannot turn {have} channels into {num_channels}: ask for 1, 2 or {have}.")


def fit_length(audio: np.ndarray, num_samples: int) -> np.ndarray:
    """Cut audio (channels, samples) to `num_samples`, or pad it with zeros at the end."""
    audio = audio[:, :num_samples]
    return np.pad(audio, ((0, 0), (0, num_samples - audio.shape[1])))


def pcm_to_float(samples: np.ndarray) -> np.ndarray:
    """Convert integer samples (full range, uint8 centred on 128) or floats to float32 in about [-1, 1]."""
    if samples.dtype.kind == "f":
        return samples.astype(np.float32)
    bits = samples.dtype.itemsize * 8
    offset = 128.0 if samples.dtype.kind == "u" else 0.0
    return ((samples.astype(np.float64) - offset) / 2.0 ** (bits - 1)).astype(np.float32)


def _riff_chunks(path: str | Path, content: bytes) -> tuple[bytes, bytes]:
    """Return the contents of the "fmt " and "data" chunks of a wav file."""
    if not content:
        raise MediaError(path, "is empty")
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise MediaError(path, "is not a wav file: it does not begin with RIFF and WAVE")
    found: dict[bytes, bytes] = {}
    start = 12
    while start + 8 <= len(content) and b"data" not in found:
        name, size = struct.unpack("<4sI", content[start : start + 8])
        start += 8
        if name == b"data" and size == UNKNOWN_SIZE:
            size = len(content) - start
        if start + size > len(content):
            raise MediaError(path, f"is truncated: {name!r} should have {size} bytes, {len(content) - start} are there")
        found[name] = content[start : start + size]
        start += size + size % 2  # chunks start at even offsets
    if b"fmt " not in found or b"data" not in found:
        raise MediaError(path, "is truncated: its format or data chunk is missing")
    return found[b"fmt "], found[b"data"]


def _to_float(path: str | Path, data: bytes, tag: int, bits: int) -> np.ndarray:
    if tag == PCM and bits == 24:
        padded = np.zeros((len(data) // 3, 4), dtype=np.uint8)
        padded[:, 1:] = np.frombuffer(data, dtype=np.uint8).reshape(-1, 3)  # little-endian: the lowest byte stays zero
        return pcm_to_float(padded.view("<i4")[:, 0])
    dtypes = {(PCM, 8): "u1", (PCM, 16): "<i2", (PCM, 32): "<i4", (FLOAT, 32): "<f4", (FLOAT, 64): "<f8"}
    if (tag, bits) not in dtypes:
        raise MediaError(path, f"has the unsupported wav format {tag} with {bits} bits: convert it to 16-bit PCM")
    return pcm_to_float(np.frombuffer(data, dtype=dtypes[tag, bits]))


def _from_float(samples: np.ndarray, sample_format: SampleFormat) -> tuple[bytes, int]:
    """Return the samples as little-endian bytes, and the number of bytes per sample."""
    if sample_format == "float32":
        return samples.astype("<f4").tobytes(), 4
    bits = int(sample_format.removeprefix("u").removeprefix("int"))
    scale = 2.0 ** (bits - 1)
    integers = np.clip(np.rint(samples.astype(np.float64) * scale), -scale, scale - 1)
    if bits == 8:
        return (integers + 128).astype(np.uint8).tobytes(), 1
    if bits == 24:
        return integers.astype("<i4").reshape(-1, 1).view(np.uint8)[:, :3].tobytes(), 3
    return integers.astype(f"<i{bits // 8}").tobytes(), bits // 8


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
