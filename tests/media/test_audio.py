from __future__ import annotations

import struct

import numpy as np
import pytest
from scipy.io import wavfile

from media import MediaError, read_wav, resample_audio, write_wav
from media.audio import fit_length, mix_channels
from tests.media.clips import click, click_time

FORMATS = {"uint8": 2**-7, "int16": 2**-15, "int24": 2**-23, "int32": 2**-23, "float32": 0.0}  # int32: float32's limit
PCM_GUID = bytes.fromhex("0100000000001000800000aa00389b71")
FLOAT_GUID = bytes.fromhex("0300000000001000800000aa00389b71")


def ramp(channels: int) -> np.ndarray:
    left = np.linspace(-1, 0.95, 1001, dtype=np.float32)
    return np.stack([left, -left * 0.5])[:channels]


def wav_bytes(fmt: bytes, data: bytes, before: bytes = b"") -> bytes:
    chunks = b"WAVE" + before + b"fmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", len(data))
    return b"RIFF" + struct.pack("<I", len(chunks) + len(data)) + chunks + data


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("sample_format", FORMATS)
def test_wav_round_trip_within_the_step_of_the_format(tmp_path, sample_format, channels):
    audio = ramp(channels)
    write_wav(tmp_path / "a.wav", audio, 22050, sample_format=sample_format)
    back, rate = read_wav(tmp_path / "a.wav")
    assert rate == 22050
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, audio, rtol=0, atol=FORMATS[sample_format] / 2 + 1e-12)


@pytest.mark.parametrize("sample_format", FORMATS)
def test_other_programs_read_what_is_written(tmp_path, sample_format):
    write_wav(tmp_path / "a.wav", ramp(2), 44100, sample_format=sample_format)
    rate, data = wavfile.read(tmp_path / "a.wav")
    assert rate == 44100
    scale = {"uint8": 2**7, "int16": 2**15, "int24": 2**31, "int32": 2**31, "float32": 1}[sample_format]
    values = (data.astype(np.float64) - (128 if sample_format == "uint8" else 0)) / scale
    np.testing.assert_allclose(values.T, ramp(2), rtol=0, atol=2**-7 if sample_format == "uint8" else 2**-15)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32", "float64"])
def test_what_other_programs_write_is_read(tmp_path, dtype):
    audio = ramp(2)
    scale, offset = {"uint8": (127, 128), "int16": (32767, 0), "int32": (2**31 - 1, 0)}.get(dtype, (1, 0))
    wavfile.write(tmp_path / "a.wav", 8000, (audio.T.astype(np.float64) * scale + offset).astype(dtype))
    back, rate = read_wav(tmp_path / "a.wav")
    assert rate == 8000
    np.testing.assert_allclose(back, audio, rtol=0, atol=0.02 if dtype == "uint8" else 1e-4)


def test_24_bit_values_are_exact(tmp_path):
    values = [0, 1, -1, 2**23 - 1, -(2**23), 0x123456]
    data = b"".join(value.to_bytes(3, "little", signed=True) for value in values)
    (tmp_path / "a.wav").write_bytes(wav_bytes(struct.pack("<HHIIHH", 1, 1, 48000, 144000, 3, 24), data))
    np.testing.assert_array_equal(read_wav(tmp_path / "a.wav")[0][0] * 2**23, values)


def test_extensible_headers_other_chunks_and_streamed_sizes(tmp_path):
    path = tmp_path / "a.wav"
    samples = np.array([[1000, -2000], [3000, -4000]], "<i2")
    extensible = struct.pack("<HHIIHHHHI", 0xFFFE, 2, 16000, 64000, 4, 16, 22, 16, 3) + PCM_GUID
    junk = b"LIST" + struct.pack("<I", 3) + b"abc\0"  # an odd size is followed by a padding byte
    path.write_bytes(wav_bytes(extensible, samples.tobytes(), junk))
    np.testing.assert_array_equal(read_wav(path)[0] * 32768, samples.T)

    floats = np.array([0.5, -0.25, 3.0], "<f4")
    extensible = struct.pack("<HHIIHHHHI", 0xFFFE, 1, 16000, 64000, 4, 32, 22, 32, 4) + FLOAT_GUID
    path.write_bytes(wav_bytes(extensible, floats.tobytes()))
    np.testing.assert_array_equal(read_wav(path)[0], [[0.5, -0.25, 1.0]])  # values beyond 1 are clipped

    plain = wav_bytes(struct.pack("<HHIIHH", 1, 2, 16000, 64000, 4, 16), samples.tobytes())
    path.write_bytes(plain.replace(b"data" + struct.pack("<I", 8), b"data\xff\xff\xff\xff"))
    assert read_wav(path)[0].shape == (2, 2)


def test_bad_wav_files_are_named_with_the_reason(tmp_path):
    write_wav(tmp_path / "good.wav", ramp(2), 16000)
    good = (tmp_path / "good.wav").read_bytes()
    pcm = struct.pack("<HHIIHH", 1, 1, 16000, 32000, 2, 16)
    bad = {
        "empty": (b"", "is empty"),
        "text": (b"hello" * 20, "not a wav"),
        "cut": (good[:-5], "is truncated"),
        "header": (good[:20], "is truncated"),
        "silent": (wav_bytes(pcm, b""), "no samples"),
        "mulaw": (wav_bytes(struct.pack("<HHIIHH", 7, 1, 8000, 8000, 1, 8), b"abc"), "unsupported wav format 7"),
        "channels": (wav_bytes(struct.pack("<HHIIHH", 1, 0, 8000, 8000, 1, 8), b"abc"), "damaged"),
        "nan": (wav_bytes(struct.pack("<HHIIHH", 3, 1, 8000, 32000, 4, 32), b"\xff" * 4), "not finite"),
    }
    for name, (content, reason) in bad.items():
        path = tmp_path / f"{name}.wav"
        path.write_bytes(content)
        with pytest.raises(MediaError, match=reason) as caught:
            read_wav(path)
        assert str(caught.value).startswith(str(path))
    with pytest.raises(MediaError, match=r"missing\.wav"):
        read_wav(tmp_path / "missing.wav")


@pytest.mark.parametrize(
    ("old", "new"), [(44100, 16000), (48000, 16000), (16000, 44100), (8000, 16000), (22050, 48000)]
)
def test_resampling_keeps_time_pitch_and_level(old, new):
    time = np.arange(old) / old
    tone = (0.5 * np.sin(2 * np.pi * 1000 * time)).astype(np.float32)[None]
    out = resample_audio(tone, old, new)
    assert out.shape == (1, new)
    wanted = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(new) / new)
    np.testing.assert_allclose(out[0, 200:-200], wanted[200:-200], atol=0.005)
    assert click_time(resample_audio(click(old, 1.0, 0.4), old, new)[0], new) == pytest.approx(0.4, abs=0.0005)


def test_resampling_removes_what_would_fold_back():
    tone = np.sin(2 * np.pi * 11000 * np.arange(44100) / 44100).astype(np.float32)[None]
    assert np.abs(resample_audio(tone, 44100, 16000)[0, 500:-500]).max() < 0.01


def test_resampling_a_full_scale_edge_stays_in_range():
    square = np.sign(np.sin(np.arange(44100) / 20)).astype(np.float32)[None]
    assert np.abs(resample_audio(square, 44100, 16000)).max() <= 1.0


def test_channels_and_length():
    stereo = ramp(2)
    np.testing.assert_allclose(mix_channels(stereo, 1)[0], stereo.mean(axis=0), atol=1e-7)
    np.testing.assert_array_equal(mix_channels(stereo[:1], 2), np.repeat(stereo[:1], 2, axis=0))
    surround = mix_channels(np.ones((6, 10), np.float32), 2)
    assert surround.shape == (2, 10)
    assert surround.max() <= 1.0
    with pytest.raises(ValueError, match="2 channels into 3"):
        mix_channels(stereo, 3)
    assert fit_length(stereo, 5).shape == (2, 5)
    np.testing.assert_array_equal(fit_length(stereo, 1200)[:, 1001:], 0)
