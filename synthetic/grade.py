"""Grading of a model on held-out captions: `python -m synthetic.grade --model tiny --num_captions 500`.

Generates one clip per caption and measures, from pixels and samples alone, how often each attribute is as the caption
states. `--model ground_truth` measures the rendered scenes, `--reconstruct true` their reconstructions by the codecs.
"""

from __future__ import annotations

import math
import multiprocessing
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from tqdm import tqdm

from core.cli import echo, parse_config
from core.text_table import table_lines
from synthetic.captions import caption
from synthetic.render import render_clip
from synthetic.scene import (
    BACKGROUNDS,
    COLORS,
    HELD_OUT_SEED_START,
    MATERIALS,
    MAX_IMPACTS,
    PITCHES,
    SIDES,
    SIZES,
    Scene,
    scene_from_seed,
)

if TYPE_CHECKING:
    from synthetic.measure import Measurement

ATTRIBUTES = ("color", "background", "size", "side", "pitch", "material", "num_impacts", "impact_heard", "impact_seen")

GROUND_TRUTH = "ground_truth"
NUM_CLASSES = {
    "color": len(COLORS),
    "background": len(BACKGROUNDS),
    "size": len(SIZES),
    "side": len(SIDES),
    "pitch": len(PITCHES),
    "material": len(MATERIALS),
    "num_impacts": MAX_IMPACTS,
}


@dataclass(frozen=True, kw_only=True)
class GradeConfig:
    """Settings of `python -m synthetic.grade`."""

    model: str = field(
        default="tiny", metadata={"help": "a preset's name, a model or adapter folder, or 'ground_truth'"}
    )
    num_captions: int = field(default=200, metadata={"help": "held-out captions, one clip each"})
    reconstruct: bool = field(default=False, metadata={"help": "encode and decode the scenes instead of generating"})
    num_workers: int = field(default=2, metadata={"help": "number of processes, each with one thread"})
    guidance_scale: float | None = field(default=None, metadata={"help": "default: the model's own"})
    num_inference_steps: int | None = field(default=None, metadata={"help": "default: the model's own"})


@dataclass(frozen=True)
class Grade:
    """Result for one attribute over all clips: the number that were right, and its share's 95 % Wilson interval."""

    attribute: str
    right: int
    total: int

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper bound of the 95 % Wilson interval."""
        z, n, share = 1.96, self.total, self.right / self.total
        centre = (share + z * z / (2 * n)) / (1 + z * z / n)
        half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return centre - half, centre + half

    def cells(self) -> tuple[str, ...]:
        """Return attribute, share, interval and chance level as the cells of a text table."""
        low, high = self.interval
        chance = f"chance {1 / NUM_CLASSES[self.attribute]:.1%}" if self.attribute in NUM_CLASSES else ""
        return self.attribute, f"{self.right / self.total:.1%}", f"[{low:.1%}, {high:.1%}]", chance


def grade_clip(scene: Scene, found: Measurement) -> dict[str, bool]:
    """Return, per attribute, whether the measured clip matches its scene's caption."""
    named = {name: getattr(found, name) == getattr(scene, name) for name in ATTRIBUTES[:6]}
    return named | {
        "num_impacts": found.num_heard == scene.num_impacts,
        "impact_heard": found.num_heard > 0,
        "impact_seen": found.num_seen > 0,
    }


def desync(found: Measurement) -> float | None:
    """Return the median distance in seconds from each impact heard to the nearest one seen; None without impacts."""
    if not (found.impacts_seen and found.impacts_heard):
        return None
    return median(min(abs(heard - seen) for seen in found.impacts_seen) for heard in found.impacts_heard)


def grade(config: GradeConfig) -> tuple[list[Grade], float | None]:
    """Return the grades per attribute, and the median over clips of `desync` in seconds."""
    seeds = range(HELD_OUT_SEED_START, HELD_OUT_SEED_START + config.num_captions)
    context = multiprocessing.get_context("spawn")
    with context.Pool(config.num_workers, _start_worker, (config,)) as pool:
        results = list(tqdm(pool.imap(_grade_seed, seeds), total=len(seeds), desc="grade", mininterval=1))
    grades = [Grade(name, sum(marks[name] for marks, _ in results), len(results)) for name in ATTRIBUTES]
    offsets = [offset for _, offset in results if offset is not None]
    return grades, median(offsets) if offsets else None


def report(config: GradeConfig, grades: list[Grade], offset: float | None) -> str:
    """Return the grades as a text report."""
    return "\n".join(
        [
            f"{config.model}: {config.num_captions} held-out captions, share right with its 95 % interval",
            *table_lines([one.cells() for one in grades]),
            "median |heard - seen| " + ("undefined" if offset is None else f"{offset:.3f} s"),
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status, 0."""
    config = parse_config(GradeConfig, argv)
    echo(report(config, *grade(config)))
    return 0


_worker: dict = {}  # state of a worker process: its pipeline, loaded once, and options


def _start_worker(config: GradeConfig) -> None:
    import torch

    from model.javisdit.pipeline import JointAVPipeline

    torch.set_num_threads(1)
    if config.model == GROUND_TRUTH:
        return
    _worker["pipeline"] = JointAVPipeline.from_pretrained(config.model)
    _worker["reconstruct"] = config.reconstruct
    _worker["options"] = {
        "guidance_scale": config.guidance_scale,
        "num_inference_steps": config.num_inference_steps,
    }


def _grade_seed(seed: int) -> tuple[dict[str, bool], float | None]:
    from synthetic.measure import measure_clip  # late: imports scipy

    scene = scene_from_seed(seed)
    if "pipeline" not in _worker:
        clip = render_clip(scene)
    elif _worker["reconstruct"]:
        [clip] = _worker["pipeline"].decode_latents(_worker["pipeline"].encode_clips([render_clip(scene)]))
    else:
        [clip] = _worker["pipeline"]([caption(scene)], seeds=[seed], **_worker["options"])
    found = measure_clip(clip)
    return grade_clip(scene, found), desync(found)


if __name__ == "__main__":
    sys.exit(main())
