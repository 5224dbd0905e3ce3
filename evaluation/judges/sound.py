"""Conversion of a clip's sound to one channel at a judge's sample rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from media.clip import AVClip

# The filter of librosa 0.9's "kaiser_best", with which the release reads every sound, in torchaudio's terms.
_KAISER_BEST: dict[str, Any] = {
    "lowpass_filter_width": 64,
    "rolloff": 0.9475937167399596,
    "resampling_method": "sinc_interp_kaiser",
    "beta": 14.769656459379492,
}


def mono_sound(clip: AVClip, sample_rate: int) -> Tensor:
    """float32 (samples,) on the CPU: the mean of the channels, then resampled. The clip must have sound."""
    import torch
    from torchaudio.functional import resample  # late: a judge can be looked up without it

    return resample(torch.tensor(clip.audio).mean(dim=0), clip.sample_rate, sample_rate, **_KAISER_BEST)
