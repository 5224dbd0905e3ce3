from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest

from media import read_clip
from synthetic.make import main
from synthetic.quality import NO_FAULT, SHARES, SHIFT, SHIFT_S, draw_fault, spoil
from synthetic.render import render_clip
from synthetic.scene import scene_from_seed


def first_seed(group):
    return next(seed for seed in range(600_000, 600_500) if draw_fault(seed).group == group)


def test_half_of_the_clips_have_a_fault_in_the_stated_shares():
    faults = [draw_fault(seed) for seed in range(4000)]
    groups = Counter(fault.group for fault in faults)
    assert groups[NO_FAULT] / 4000 == pytest.approx(0.5, abs=0.03)
    for group, share in zip((SHIFT, "sound", "picture", "motion"), SHARES, strict=True):
        assert groups[group] / 2000 == pytest.approx(share, abs=0.04)
    shifts = np.array([fault.strength for fault in faults if fault.group == SHIFT])
    assert SHIFT_S[0] <= np.abs(shifts).min()
    assert np.abs(shifts).max() <= SHIFT_S[1]
    assert 0.4 < (shifts > 0).mean() < 0.6


@pytest.mark.parametrize(("group", "changed"), [("sound", "audio"), (SHIFT, "audio"), ("picture", "video")])
def test_a_fault_spoils_its_own_modality_alone(group, changed):
    seed = first_seed(group)
    clean = render_clip(scene_from_seed(seed))
    spoilt = spoil(clean, seed)
    for name in ("video", "audio"):
        assert np.array_equal(getattr(spoilt, name), getattr(clean, name)) == (name != changed)


def test_a_clip_without_a_fault_stays_as_it_is():
    seed = first_seed(NO_FAULT)
    clean = render_clip(scene_from_seed(seed))
    assert spoil(clean, seed) is clean


def test_mixed_clips_are_written_beside_clean_ones_with_their_faults_in_the_table(tmp_path):
    seed = first_seed(SHIFT)
    for quality in ("clean", "mixed"):
        main(["--output", str(tmp_path), "--num_clips", "1", "--first_seed", str(seed), "--quality", quality])
    [row] = pq.read_table(tmp_path / "prompts.parquet").to_pylist()
    assert (row["fault_group"], row["fault_strength"]) == (SHIFT, draw_fault(seed).strength)
    sounds = [read_clip(tmp_path / f"{folder}/bounce-{seed:07d}.mp4").audio for folder in ("clips", "mixed_clips")]
    assert not np.array_equal(*sounds)
