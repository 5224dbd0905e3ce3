from __future__ import annotations

import pytest

from synthetic.impacts import desync, impact_agreement, match_impacts


@pytest.mark.parametrize(
    ("seen", "heard", "pairs"),
    [
        ([0.3, 0.9], [0.35, 0.95], [(0, 0), (1, 1)]),
        ([0.9], [0.1, 0.8, 1.9], [(0, 1)]),
        ([0.3, 0.9, 1.4], [1.0, 1.6], [(1, 0), (2, 1)]),
        ([0.3, 0.8, 1.2], [0.7, 1.2, 1.6], [(0, 0), (1, 1), (2, 2)]),  # a shift of 0.4, not nearest neighbours
        ([], [0.5], []),
    ],
)
def test_matching_keeps_the_order_at_the_least_offset(seen, heard, pairs):
    assert match_impacts(seen, heard) == pairs
    assert match_impacts(heard, seen) == [(b, a) for a, b in pairs]


def test_desync_is_the_mean_offset_and_two_seconds_when_nothing_matches():
    assert desync([0.3, 0.8], [0.5, 1.0]) == pytest.approx(0.2)
    assert desync([0.5, 1.0], [0.3, 0.8]) == pytest.approx(0.2)
    assert desync([0.5], []) == desync([], [0.5]) == desync([], []) == 2.0
    assert desync([0.5], [9.0]) == 2.0


def test_agreement_falls_with_offset_extra_impacts_and_wrong_loudness():
    seen, speeds = [0.3, 0.9, 1.4], [300.0, 250.0, 200.0]
    perfect = impact_agreement(seen, speeds, seen, [-1.0, -2.0, -3.0])
    assert perfect == pytest.approx(1.0)
    shifted = impact_agreement(seen, speeds, [0.4, 1.0, 1.5], [-1.0, -2.0, -3.0])
    assert 0.5 < shifted < 0.8
    extra = impact_agreement(seen, speeds, [0.3, 0.6, 0.9, 1.4], [-1.0, -1.5, -2.0, -3.0])
    assert extra == pytest.approx(6 / 7)
    assert impact_agreement(seen, speeds, seen, [-3.0, -2.0, -1.0]) == pytest.approx(0.8)
    assert impact_agreement(seen, speeds, [], []) == 0.0
