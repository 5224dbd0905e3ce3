"""The machine as a problem report needs it: versions, devices, encoders, disk, and what is missing.

Printed by `avdpo env` as Markdown. Paths, host names and environment variables are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from avdpo import __version__
from core.cli import echo, program_name

LIBRARIES = (
    *("torch", "torchvision", "torchaudio", "transformers", "diffusers", "trl", "peft", "accelerate", "datasets"),
    *("ray", "pandas", "pyarrow", "numpy", "scipy", "av", "safetensors", "tokenizers", "huggingface_hub"),
)
OPTIONAL = {  # package -> extra of this project that installs it, and its use
    "librosa": ("evaluation", "the metric AV-Align"),
    "cv2": ("evaluation", "the metric AV-Align"),
    "audiobox_aesthetics": ("rewards", "tests that compare with the published AudioBox package"),
    "s3fs": ("s3", "runs in an S3 bucket"),
    "gcsfs": ("gs", "runs in a Google Cloud Storage bucket"),
}
ENCODERS = {"libx264": "pictures of clips (h264)", "aac": "sound of clips (aac)"}
GIB = 2**30


def main(argv: Sequence[str] | None = None) -> int:
    """Print the report and return the exit status, 0."""
    parser = argparse.ArgumentParser(
        prog=program_name(),
        description="Print versions, devices and what is missing, as Markdown to paste into a report.",
    )
    parser.parse_args(argv)
    echo(report())
    return 0


def report() -> str:
    """Return the whole report as Markdown."""
    sections = {"Versions": versions(), "Devices": devices(), "Media": encoders(), "Missing": missing()}
    return "\n\n".join(
        "\n".join([f"### {title}", *(f"- {line}" for line in lines)]) for title, lines in sections.items()
    )


def versions() -> Iterator[str]:
    """Yield a line per library: name and installed version."""
    yield f"avdpo {__version__}"
    yield f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    for name in LIBRARIES:
        try:
            yield f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            yield f"{name} missing"


def devices() -> Iterator[str]:
    """Yield lines on processor, memory, disk, threads and CUDA devices."""
    import torch  # late: `--help` does not need it

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    yield f"CPU: {len(os.sched_getaffinity(0))} of {os.cpu_count()} cores usable, {memory:.0f} GiB memory"
    yield f"free disk in this folder: {shutil.disk_usage('.').free / GIB:.0f} GiB"
    yield f"torch threads: {torch.get_num_threads()}, CPU capability {torch.backends.cpu.get_cpu_capability()}"
    yield _blas()
    if not torch.cuda.is_available():
        yield f"CUDA: no device (torch built for CUDA {torch.version.cuda or 'none'})"
        return
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        capability = f"{card.major}.{card.minor}"
        yield f"CUDA {index}: {card.name}, {card.total_memory / GIB:.0f} GiB, compute capability {capability}"
    yield f"CUDA {torch.version.cuda}, bfloat16 {'supported' if torch.cuda.is_bf16_supported() else 'not supported'}"


def encoders() -> Iterator[str]:
    """Yield a line per encoder that writing clips needs, and the FFmpeg libraries that PyAV was built with."""
    import av

    for name, use in ENCODERS.items():
        yield f"{name}: {'available' if _has_encoder(name) else 'missing'}, for the {use}"
    built = ", ".join(f"{name} {'.'.join(map(str, number))}" for name, number in sorted(av.library_versions.items()))
    yield f"FFmpeg in PyAV: {built}"
    yield f"ffmpeg program: {'found' if shutil.which('ffmpeg') else 'not found (not needed)'}"


def missing() -> list[str]:
    """Return a line per thing that is not there, with the command that gets it; one line says so where all is there."""
    lines = [
        f"{name}, for {use}: pip install 'avdpo[{extra}]'"
        for name, (extra, use) in OPTIONAL.items()
        if importlib.util.find_spec(name) is None
    ]
    lines += [f"encoder {name}: pip install --force-reinstall av" for name in ENCODERS if not _has_encoder(name)]
    if not Path("weights").is_dir():
        lines.append("folder weights (published weights; the tiny preset needs none): avdpo fetch --output weights")
    return lines or ["nothing"]


def _blas() -> str:
    import numpy as np

    built = np.show_config(mode="dicts")
    blas = built["Build Dependencies"]["blas"] if isinstance(built, dict) else {}
    return f"BLAS of numpy: {blas.get('name', 'unknown')} {blas.get('version', '')}".rstrip()


def _has_encoder(name: str) -> bool:
    import av

    try:
        av.codec.Codec(name, "w")
    except ValueError:  # also av.error.UnknownCodecError
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
