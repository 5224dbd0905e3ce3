"""Plan of a construction, for `--dry_run`: pairs, shifts in steps, disk space, and passes of the network."""

from __future__ import annotations

import math

from dpo.construct.config import ConstructConfig
from dpo.construct.winners import Winners
from model.javisdit.network.config import SIZES

BYTES = 2  # of a stored value, float16
PUBLISHED_STEP_S = 0.04  # of the published audio codec; its weights are not needed for a plan


def describe(winners: Winners, config: ConstructConfig) -> list[str]:
    """Return the plan, line by line.

    Raises:
        ValueError: there is no such model, or a stage is shorter than the codec's steps.
    """
    shapes = winners.shapes()
    size = sum(2 * BYTES * math.prod(shape) for of_clip, _ in shapes for shape in of_clip.values())
    pairs = len(shapes) * config.pairs_per_clip
    usable = sum(all(shape for shape in of_clip.values()) for of_clip, _ in shapes)
    lines = [f"{len(shapes)} clips give at most {pairs} pairs; {size * config.pairs_per_clip / 1e6:.3g} MB of latents"]
    lines += [f"{len(shapes) - usable} clips lack picture or sound"] if usable < len(shapes) else []
    return lines + (_shift_lines(config) if config.distortion == "shift" else _regional_lines(config, pairs))


def _shift_lines(config: ConstructConfig) -> list[str]:
    step_s = _step_s(config.model)
    lines = []
    for stage, shifts in enumerate(config.ranges):
        low, high = shifts.steps(step_s)
        lines.append(
            f"stage {stage}: sound {shifts} s early or late, {low} to {high} steps of {1000 * step_s:g} ms; guards may "
            "leave pairs out"
        )
    passes = config.signal_clips * config.signal_settings().num_draws * 2
    test = f"{config.signal_clips} pairs, {passes} passes of the network on two clips" if passes else "left out"
    return [*lines, f"signal test: {test}"]


def _regional_lines(config: ConstructConfig, pairs: int) -> list[str]:
    steps, scale = config.num_inference_steps, config.guidance_scale
    if config.model not in SIZES:
        from model.javisdit.pipeline import read_defaults
        from model.javisdit.weights.folders import PIPELINE_CONFIG_NAME, base_folder

        defaults = read_defaults(base_folder(config.model) / PIPELINE_CONFIG_NAME)
        steps = defaults.num_inference_steps if steps is None else steps
        scale = defaults.guidance_scale if scale is None else scale
    levels = ", ".join(f"{one:g}" for one in config.strengths)
    shown = "the model's number of" if steps is None else steps
    lines = [f"regions of {' and '.join(config.regions)} are generated anew by {levels} of {shown} steps"]
    if steps is not None:
        mean = sum(round(one * steps) for one in config.strengths) / len(config.strengths)
        clips = 1 if scale == 1 else 2
        lines.append(f"about {mean * pairs:.3g} passes of the network on {clips} clip(s)")
    return lines


def _step_s(model: str) -> float:
    """Return the duration of a step of a model's audio latents; the published one for the name of a size."""
    if model in SIZES:
        return PUBLISHED_STEP_S
    from model.javisdit.pipeline import JointAVPipeline

    pipeline = JointAVPipeline.from_pretrained(model)
    return pipeline.audio_codec.samples_per_step / pipeline.defaults.sample_rate
