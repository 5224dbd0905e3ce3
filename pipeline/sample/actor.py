"""The Ray worker that samples candidates. Each worker loads the generator once; the driver never loads it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from core.atomic import TEMPORARY_PREFIX, atomic_path
from core.devices import is_device_lost, limit_threads
from core.ids import GROUND_TRUTH_INDEX, candidate_id, candidate_seed, file_stem
from core.storage import is_local, storage_path
from jobs.stops import is_full_disk

if TYPE_CHECKING:
    from jobs.workers import Job, Result
    from media.clip import AVClip

_DOTTED_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class Latents(Protocol):
    """Latents that can be saved to a file, such as `model.AVLatents`."""

    def save(self, path: str | Path) -> None: ...


# The call that sampling needs: generator(prompts, *, seeds, output="both", **options) -> [(clip, latents or None)],
# where sample i depends on prompt i and seed i alone. `model.JointAVPipeline` is a generator; users may give their own.
Generator = Callable[..., list[Any]]


def load_generator(spec: str, device: str = "cpu", dtype: str = "float32") -> Generator:
    """Load the model to sample from.

    Args:
        spec: the name of a shipped preset ("tiny"), a model or adapter folder, or "package.module:callable", which is
            called as `callable(device=device, dtype=dtype)`.
    """
    if is_dotted_path(spec):
        return import_target(spec)(device=device, dtype=dtype)
    import torch  # imported late: the driver and other generators do not need it

    from model.javisdit.pipeline import JointAVPipeline

    return JointAVPipeline.from_pretrained(spec, device=device, dtype=getattr(torch, dtype))


def is_dotted_path(spec: str) -> bool:
    return _DOTTED_PATH.fullmatch(spec) is not None


def import_target(spec: str) -> Any:
    """Return the object that "package.module:name" names. Raises ValueError if there is none."""
    module_name, _, name = spec.partition(":")
    try:
        return getattr(import_module(module_name), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ValueError(
            f"{spec!r} cannot be loaded: {error}. Give it as package.module:name, importable from here."
        ) from error


class SampleActor:
    """Worker that samples the candidates of a prompt and converts its ground truth to their format.

    Settings: model, device, dtype, num_threads, folder (of the candidates table), seed, `options` for the generator.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._folder = storage_path(settings["folder"])
        self._generator = load_generator(settings["model"], settings["device"], settings["dtype"])
        limit_threads(settings["num_threads"])

    def run(self, job: Job) -> Result:
        """Make the rows of one prompt. An error is recorded in `failures`; other rows and the worker are not affected.

        Two errors are not failures of a row. A full disk is returned as `no_space` and ends the stage. A lost GPU makes
        this process useless, so its error is raised and the worker is replaced.
        """
        result: Result = {"key": job["key"], "rows": [], "failures": [], "retry": False}
        _remove_leftovers(self._folder / job["media"])
        steps = [(job["indices"], self._candidates), ([GROUND_TRUTH_INDEX] * job["ground_truth"], self._ground_truth)]
        for indices, step in steps:
            if not indices:
                continue
            try:
                result["rows"] += step(job)
            # Models and files come from outside: any exception fails these rows only and is stored as their reason.
            except Exception as error:
                if is_device_lost(error):
                    raise
                if is_full_disk(error):
                    return result | {"retry": False, "no_space": str(error)}
                reason = f"{type(error).__name__}: {error}"
                result["failures"] += [{"index": index, "error": reason} for index in indices]
                result["retry"] |= not isinstance(error, ValueError)  # an error in the input would only repeat
        return result

    def _candidates(self, job: Job) -> list[dict[str, Any]]:
        indices = job["indices"]
        seeds = [candidate_seed(self._settings["seed"], job["key"], index) for index in indices]
        started = time.perf_counter()
        samples = self._generator(
            [job["prompt"]] * len(indices), seeds=seeds, output="both", **self._settings["options"]
        )
        seconds = (time.perf_counter() - started) / len(indices)
        assert len(samples) == len(indices), f"{len(indices)} samples asked, {len(samples)} returned"
        return [
            self._write(job, index, clip, seed, latents) | {"generation_s": seconds}
            for index, seed, (clip, latents) in zip(indices, seeds, samples, strict=True)
        ]

    def _ground_truth(self, job: Job) -> list[dict[str, Any]]:
        """Write the real clip in the candidates' format with the same writer, so that codec and size are no cue."""
        from media import read_clip

        first = self._folder / job["media"] / "0.mp4"
        like = read_clip(first, audio_path=wav if (wav := first.with_suffix(".wav")).exists() else None)
        sound: dict[str, Any] = {}
        if like.has_audio:
            sound = {"sample_rate": like.sample_rate, "num_channels": like.num_channels}
        clip = read_clip(
            job["video_path"],
            audio_path=job["audio_path"],
            fps=like.fps,
            height=like.height,
            width=like.width,
            num_frames=like.num_frames,
            **sound,
        )
        return [self._write(job, GROUND_TRUTH_INDEX, clip, None, None)]

    def _write(self, job: Job, index: int, clip: AVClip, seed: int | None, latents: Latents | None) -> dict[str, Any]:
        """Write latents, then sound, then the mp4. An mp4 under its final name means that all three files exist."""
        from media import write_clip

        video_path = f"{job['media']}/{file_stem(index)}.mp4"
        target = self._folder / video_path
        if latents is not None:
            with atomic_path(target.with_suffix(".safetensors")) as temporary:
                latents.save(temporary)
        write_clip(clip, target)
        return {
            "candidate_id": candidate_id(job["key"], index),
            "prompt_id": job["key"],
            "prompt": job["prompt"],
            "audio_prompt": job["audio_prompt"],
            "index": index,
            "is_ground_truth": index == GROUND_TRUTH_INDEX,
            "seed": seed,
            "video_path": video_path,
            "audio_path": str(Path(video_path).with_suffix(".wav")) if clip.has_audio else None,
            "latents_path": str(Path(video_path).with_suffix(".safetensors")) if latents is not None else None,
            "num_frames": clip.num_frames,
            "height": clip.height,
            "width": clip.width,
            "fps": clip.fps,
            "sample_rate": clip.sample_rate,
            "duration_s": clip.duration_s,
            "generation_s": None,
            "error": None,
            "video_bytes": target.stat().st_size,  # used only by the journal
        }


def _remove_leftovers(folder: Path) -> None:
    """Delete the temporary files of a worker that was killed while it was writing."""
    if is_local(folder):
        for path in folder.glob(f"{TEMPORARY_PREFIX}*"):
            path.unlink(missing_ok=True)
