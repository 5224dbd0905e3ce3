"""Each guard leaves out what it should, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from dpo.construct.guards import NOTHING_LEFT, ON_THE_BEAT, ONSET_LOST, STEADY, reason_to_leave_out
from media.onsets import Onsets

DURATION_S = 2.0


@pytest.mark.parametrize(
    ("times", "shift_s", "keep_onsets", "reason"),
    [
        ([0.5, 1.1], 0.2, True, None),
        ([], 0.2, False, STEADY),
        ([1.9], 0.2, False, NOTHING_LEFT),
        ([0.1], -0.2, False, NOTHING_LEFT),
        ([1.9], -0.2, False, None),
        ([0.2, 0.6, 1.0, 1.4], 0.4, False, ON_THE_BEAT),
        ([0.2, 0.6, 1.0, 1.4], -0.8, False, ON_THE_BEAT),
        ([0.2, 0.6, 1.0, 1.4], 0.2, False, None),
        ([0.5, 1.9], 0.2, True, ONSET_LOST),
        ([0.5, 1.9], 0.2, False, None),
    ],
)
def test_reasons(times, shift_s, keep_onsets, reason):
    onsets = Onsets(np.array(times, dtype=float), np.ones(len(times)))
    assert reason_to_leave_out(onsets, shift_s, DURATION_S, keep_onsets) == reason
