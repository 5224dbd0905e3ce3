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
UNKNOWN_SIZE = 0xFFFFFFFF  # written by programs that stream to a pipe: the data goes on to the end of the file
CENTRE_GAIN = 0.7071  # -3 dB, the usual share of a centre or surround channel in a stereo mix


def read_wav(path: str | Path) -> tuple[np.ndarray, int]:
    """Read a wav file: audio float32 (channels, samples) in [-1, 1] and its rate in Hz.

    8, 16, 24 and 32-bit integers, 32 and 64-bit floats, plain or WAVE_FORMAT_EXTENSIBLE. Integers of n bits are
    divided by 2^(n-1); floats beyond [-1, 1] are clipped.
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
        tag = struct.unpack("<H", fmt[24:26])[0]  # the sub-format identifier begins with the plain tag
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
    """Write audio float32 (channels, samples) in [-1, 1] as wav, atomically.

    float32 is lossless; the integer formats round to a step of 2^(1-bits), and 1.0 becomes the largest integer.
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
        chunks += _chunk(b"fact", struct.pack("<I", audio.shape[1]))  # required of every format that is not PCM
    with atomic_path(path) as temporary:
        temporary.write_bytes(_chunk(b"RIFF", chunks + _chunk(b"data", data)))


def resample_audio(audio: np.ndarray, sample_rate: int, new_sample_rate: int) -> np.ndarray:
    """Change the rate of audio (channels, samples); sample 0 keeps its time, the length becomes round(n * new / old).

    A zero-phase polyphase filter: nothing is delayed, and frequencies above the new Nyquist rate are removed.
    """
    if sample_rate < 1 or new_sample_rate < 1:
        raise ValueError(f"Cannot resample from {sample_rate} Hz to {new_sample_rate} Hz: give positive rates.")
    if sample_rate == new_sample_rate:
        return audio
    from scipy.signal import resample_poly  # late: takes longer to import than the rest of this package

    divisor = gcd(sample_rate, new_sample_rate)
    up, down = new_sample_rate // divisor, sample_rate // divisor
    length = max(1, round(audio.shape[1] * new_sample_rate / sample_rate))
    resampled = resample_poly(audio.astype(np.float64), up, down, axis=1)[:, :length]
    return np.clip(resampled, -1.0, 1.0).astype(np.float32)  # a steep edge overshoots a little


def mix_channels(audio: np.ndarray, num_channels: int) -> np.ndarray:
    """Bring audio (channels, samples) to mono (the mean), stereo, or more channels by repeating a mono one."""
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
    """Cut audio (channels, samples) to `num_samples`, or add zeros at its end."""
    audio = audio[:, :num_samples]
    return np.pad(audio, ((0, 0), (0, num_samples - audio.shape[1])))


def pcm_to_float(samples: np.ndarray) -> np.ndarray:
    """Integers over their full range, uint8 centred on 128, or floats, as float32 in about [-1, 1]."""
    if samples.dtype.kind == "f":
        return samples.astype(np.float32)
    bits = samples.dtype.itemsize * 8
    offset = 128.0 if samples.dtype.kind == "u" else 0.0
    return ((samples.astype(np.float64) - offset) / 2.0 ** (bits - 1)).astype(np.float32)


def _riff_chunks(path: str | Path, content: bytes) -> tuple[bytes, bytes]:
    """The "fmt " and "data" chunks of a wav file."""
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
        start += size + size % 2  # chunks begin at even positions
    if b"fmt " not in found or b"data" not in found:
        raise MediaError(path, "is truncated: its format or data chunk is missing")
    return found[b"fmt "], found[b"data"]


def _to_float(path: str | Path, data: bytes, tag: int, bits: int) -> np.ndarray:
    if tag == PCM and bits == 24:
        padded = np.zeros((len(data) // 3, 4), dtype=np.uint8)
        padded[:, 1:] = np.frombuffer(data, dtype=np.uint8).reshape(-1, 3)  # little-endian: the low byte stays zero
        return pcm_to_float(padded.view("<i4")[:, 0])
    dtypes = {(PCM, 8): "u1", (PCM, 16): "<i2", (PCM, 32): "<i4", (FLOAT, 32): "<f4", (FLOAT, 64): "<f8"}
    if (tag, bits) not in dtypes:
        raise MediaError(path, f"has the unsupported wav format {tag} with {bits} bits: convert it to 16-bit PCM")
    return pcm_to_float(np.frombuffer(data, dtype=dtypes[tag, bits]))


def _from_float(samples: np.ndarray, sample_format: SampleFormat) -> tuple[bytes, int]:
    """Little-endian bytes of the samples, and the bytes of one."""
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
