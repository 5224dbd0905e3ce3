"""The shipped rewards on corrupted held-out clips; `docs/results.md` has the results on more clips."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from rewards.synchformer import SynchformerReward
from synthetic.corrupt import shift_sound
from synthetic.render import render_clip
from synthetic.scene import scene_from_seed
from synthetic.train_rewards.command import TASKS
from synthetic.train_rewards.trials import FIRST_SEED, report, run_trials

NUM_SCENES = 24
LEAST_AREA = 0.9
LESS = {"ib_av": 0.85}  # 0.92 on 200 scenes; with these few scenes it may be below 0.9


@pytest.mark.parametrize("name", TASKS)
def test_clean_clips_rank_over_clips_gone_wrong(name):
    trials = run_trials(name, "tiny", NUM_SCENES)
    by_column = defaultdict(list)
    for trial in trials:
        by_column[trial.column].append(trial.value)
    if name == "synchformer":
        assert by_column.pop("share of clips")[0] >= 0.8, report(trials)
    for column, areas in by_column.items():
        assert np.mean(areas) >= LESS.get(column, LEAST_AREA), f"{column}\n{report(trials)}"


def test_the_tiny_synchformer_hears_how_late_a_sound_is():
    reward = SynchformerReward.load("tiny")
    clips = [render_clip(scene_from_seed(FIRST_SEED + index)) for index in range(12)]
    for delay in (0.0, 0.4, 0.8):
        offsets = reward.offset_distribution([shift_sound(clip, delay) for clip in clips]).argmax(dim=1)
        early = reward.offsets_s[offsets].numpy()  # > 0 where the sound comes before the picture
        assert np.mean(np.abs(early + delay) < 0.1) >= 0.8, delay
