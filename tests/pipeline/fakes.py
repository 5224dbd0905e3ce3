"""A generator and rewards without weights, given by dotted path like a user's own."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from core.atomic import atomic_path
from media import AVClip
from rewards import Prompt, Reward

NUM_FRAMES, SIZE, FPS, SAMPLE_RATE = 8, 32, 16.0, 16000

HOSTILE = [
    "quotes \" and ' and `",
    "<script>alert(1)</script>&amp;",
    "emoji \U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "two\nlines\r\nand a\ttab",
    "../../etc/passwd",
    "x" * 300,
    "\u05e9\u05dc\u05d5\u05dd \u202eright to left",
    "comma, semicolon; 100 % $HOME $(id) {0} \\",
    " spaces around ",
    "NULL",
]


class FakeLatents:
    """Bytes that replace latents."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def save(self, path: str | Path) -> None:
        with atomic_path(path) as temporary:
            temporary.write_bytes(self._content)


class FakeGenerator:
    """Generator of clips that depend on prompt and seed. Some words in a prompt make it fail."""

    def __init__(self, device: str, dtype: str) -> None:
        assert (device, dtype) == ("cpu", "float32")

    def __call__(self, prompts: list[str], *, seeds: list[int], output: str, **options: Any) -> list[Any]:
        assert output == "both"
        return [self._sample(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]

    def _sample(self, prompt: str, seed: int) -> tuple[AVClip, FakeLatents]:
        if "CRASH" in prompt:
            os._exit(1)
        if "RAISE" in prompt:
            raise ValueError("no such thing")
        rng = np.random.default_rng([seed, *prompt.encode()])
        video = np.broadcast_to(rng.integers(0, 256, size=3), (NUM_FRAMES, SIZE, SIZE, 3)).astype(np.uint8)
        audio = (0.1 * rng.standard_normal((1, round(NUM_FRAMES / FPS * SAMPLE_RATE)))).clip(-1, 1).astype(np.float32)
        return AVClip(video, FPS, audio, SAMPLE_RATE), FakeLatents(video[0, 0, 0].tobytes())


class SlowGenerator(FakeGenerator):
    """A generator slow enough to be killed during its work."""

    def _sample(self, prompt: str, seed: int) -> tuple[AVClip, FakeLatents]:
        time.sleep(0.15)
        return super()._sample(prompt, seed)


class KilledOnceGenerator(FakeGenerator):
    """A generator that is killed at a prompt `KILL <file>`, the first time only."""

    def _sample(self, prompt: str, seed: int) -> tuple[AVClip, FakeLatents]:
        word, _, name = prompt.partition(" ")
        if word == "KILL" and not Path(name).exists():
            Path(name).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._sample(prompt, seed)


class FullDiskLatents(FakeLatents):
    def save(self, path: str | Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


class FullDiskGenerator(FakeGenerator):
    """A generator whose output for a prompt `FULL <file>` finds no space while that file exists."""

    def _sample(self, prompt: str, seed: int) -> tuple[AVClip, FakeLatents]:
        clip, latents = super()._sample(prompt, seed)
        word, _, name = prompt.partition(" ")
        return clip, FullDiskLatents(b"") if word == "FULL" and Path(name).exists() else latents


class BrokenGenerator:
    def __init__(self, device: str, dtype: str) -> None:
        raise RuntimeError("the weights are gone")


class FakeReward(Reward):
    """Reward with every ranked metric, computed from the redness and a few samples of a clip."""

    name = "fake"
    version = "1"
    columns: ClassVar[tuple[str, ...]] = (
        "visual_quality",
        "motion_quality",
        "ib_tv",
        "audio_quality",
        "ib_ta",
        "ib_av",
        "desync",
    )
    higher_is_better: ClassVar[dict[str, bool]] = {column: column != "desync" for column in columns}
    needs = frozenset({"video", "audio"})
    licence = "none"

    def score(self, clips: list[AVClip], prompts: list[Prompt]) -> dict[str, Any]:
        import torch

        quality = torch.tensor([clip.video[..., 0].mean() / 255 for clip in clips])  # most candidates agree everywhere
        details = torch.tensor(np.stack([clip.audio[0, 100 : 100 + len(self.columns)] for clip in clips]))
        values = quality[:, None] + 0.1 * details
        return dict(zip(self.columns, values.float().T, strict=True)) | {"desync": 1 - values[:, -1].float()}


class NewerFakeReward(FakeReward):
    """The same reward, whose scores have changed."""

    version = "2"

    def score(self, clips: list[AVClip], prompts: list[Prompt]) -> dict[str, Any]:
        return {column: values + 1 for column, values in super().score(clips, prompts).items()}


class LoudnessReward(Reward):
    """A third-party metric, undefined for a prompt that asks for it."""

    name = "loudness"
    version = "1"
    columns = ("loudness",)
    higher_is_better: ClassVar[dict[str, bool]] = {"loudness": False}
    needs = frozenset({"audio", "text"})
    licence = "none"

    def score(self, clips: list[AVClip], prompts: list[Prompt]) -> dict[str, Any]:
        import torch

        levels = [
            float("nan") if "silence" in prompt.prompt else float(np.abs(clip.audio).mean())
            for clip, prompt in zip(clips, prompts, strict=True)
        ]
        return {"loudness": torch.tensor(levels)}


class CrashingReward(FakeReward):
    """Reward that kills its worker at a clip of one prompt and gives other clips NaN scores."""

    name = "crashing"

    def score(self, clips: list[AVClip], prompts: list[Prompt]) -> dict[str, Any]:
        if any("POISON" in prompt.prompt for prompt in prompts):
            os._exit(1)
        scores = super().score(clips, prompts)
        for index, prompt in enumerate(prompts):
            if prompt.prompt in ("nan", "inf"):
                scores["ib_av"][index] = float(prompt.prompt)
        return scores


class CrashingActor:
    """Actor that kills its worker at a job whose key is in capitals."""

    def __init__(self, settings: dict[str, Any]) -> None:
        pass

    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        if job["key"].isupper():
            os._exit(1)
        return {"key": job["key"]}


class SleepyActor:
    """Actor that returns its process id."""

    def __init__(self, settings: dict[str, Any]) -> None:
        pass

    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.5)
        return {"key": job["key"], "process": os.getpid()}


class NodeActor:
    """Actor that returns its node in a result of a given size."""

    def __init__(self, settings: dict[str, Any]) -> None:
        import ray

        self._node = ray.get_runtime_context().get_node_id()
        self._content = "x" * settings["num_bytes"]

    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.1)
        return {"key": job["key"], "node": self._node, "content": self._content}


class RaisingActor:
    """Actor that raises for one job, like a process that cannot continue."""

    def __init__(self, settings: dict[str, Any]) -> None:
        pass

    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        if job["key"] == "b":
            raise RuntimeError("the driver of the GPU is gone")
        return {"key": job["key"]}


class BrokenGpuGenerator(FakeGenerator):
    """Generator like a process with a failed GPU: every call after the prompt `BREAK` fails too."""

    _is_broken = False

    def _sample(self, prompt: str, seed: int) -> tuple[AVClip, FakeLatents]:
        self._is_broken |= prompt == "BREAK"
        if self._is_broken:
            raise RuntimeError("CUDA error: an illegal memory access was met\nFor debugging pass this and that.")
        return super()._sample(prompt, seed)


class DyingAtStartActor:
    def __init__(self, settings: dict[str, Any]) -> None:
        os._exit(1)
