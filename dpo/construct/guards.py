"""Guards of shifted losers: reasons to leave a pair out, found from the onsets of the winner's sound. Imports no torch.

Source: docs/upstream/constructed_negatives.md, section 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from media.onsets import Onsets

STEADY = "steady sound: no onset stands out, so a shift would not be noticed"
NOTHING_LEFT = "no onset is left in the clip after the shift, so there is nothing to misalign"
ON_THE_BEAT = "the shift is near a beat's period: most shifted onsets fall on others and are in sync again"
ONSET_LOST = "the shift moves an onset out of the clip"
GUARDS = (STEADY, NOTHING_LEFT, ON_THE_BEAT, ONSET_LOST)

MAX_LIKENESS = 0.5  # of the shifted onsets to the unshifted ones


def reason_to_leave_out(onsets: Onsets, shift_s: float, duration_s: float, keep_onsets: bool) -> str | None:
    """Return why a shift of a clip's sound makes no pair, one of `GUARDS`; None if it makes one.

    Args:
        onsets: onsets of the winner's sound.
        shift_s: delay of the loser's sound in seconds; negative: it is early.
        duration_s: length of the clip.
        keep_onsets: also refuse a shift that moves an onset out of the clip.
    """
    if not len(onsets):
        return STEADY
    kept = onsets.kept(shift_s, duration_s)
    if not kept.any():
        return NOTHING_LEFT
    if onsets.likeness(shift_s, duration_s) > MAX_LIKENESS:
        return ON_THE_BEAT
    if keep_onsets and not kept.all():
        return ONSET_LOST
    return None
