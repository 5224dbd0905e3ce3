"""Counter-metrics of one clip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.counters.names import OF_A_CLIP
from evaluation.counters.picture import measure_picture
from evaluation.counters.sound import measure_sound
from media.clip import AVClip
from synthetic.impacts import match_impacts


@dataclass(frozen=True, eq=False)
class ClipCounters:
    """Measured properties of one clip.

    Attributes:
        values: a number for each name of `OF_A_CLIP`; NaN where it is not defined.
        picture, sound: features, whose distances between samples measure diversity; None for a clip without sound.
    """

    values: dict[str, float]
    picture: np.ndarray
    sound: np.ndarray | None


def measure_counters(clip: AVClip, latents: Path | None = None) -> ClipCounters:
    """Measure a clip, without any knowledge of its content. Takes about 20 ms for a Bounce clip.

    Args:
        clip: of any size, rate and length.
        latents: safetensors file with the tensors "video" and "audio", as sampling keeps it.

    Raises:
        ValueError: the file of the latents cannot be read.
    """
    picture, sound = measure_picture(clip.video, clip.fps), measure_sound(clip)
    values = dict.fromkeys(OF_A_CLIP, float("nan"))
    values |= {"motion": picture.motion, "brightness": picture.brightness, "saturation": picture.saturation}
    if latents is not None:
        values |= {f"{name}_latent_norm": norm for name, norm in latent_norms(latents).items()}
    if sound is not None:
        values |= {"loudness": sound.loudness, "silence": sound.silence, "clipping": sound.clipping}
        values["onsets_heard"] = float(len(sound.onsets))
        values["onsets_unseen"] = float(len(sound.onsets) - len(picture.onsets))
        values["av_offset"] = signed_offset(picture.onsets, sound.onsets)
    return ClipCounters(values, picture.features, None if sound is None else sound.features)


def signed_offset(seen: tuple[float, ...], heard: tuple[float, ...]) -> float:
    """Return the median over matched onsets of time heard less time seen, in seconds; NaN where nothing matches."""
    offsets = [heard[second] - seen[first] for first, second in match_impacts(seen, heard)]
    return float(np.median(offsets)) if offsets else float("nan")


def latent_norms(path: Path) -> dict[str, float]:
    """Return the root mean square of the tensors "video" and "audio" in a file of latents; NaN for an empty one.

    Raises:
        ValueError: the file cannot be read, or has no such tensors.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in ("video", "audio")}
    except (SafetensorError, OSError, TypeError) as error:
        raise ValueError(f"{path} holds no latents that can be read ({error}). Sample the clip again.") from error
    return {
        name: float(np.sqrt(np.square(one, dtype=np.float64).mean())) if one.size else float("nan")
        for name, one in tensors.items()
    }
