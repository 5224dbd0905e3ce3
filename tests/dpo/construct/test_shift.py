"""Shifts of latents: exact in time when decoded, by rule at the edges, and drawn from the seed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from dpo.construct.ranges import ShiftRange
from dpo.construct.shift import Shifter, draw_steps, shift_latents
from dpo.construct.winners import Winners
from model.javisdit.pipeline import JointAVPipeline
from model.prepare.check import to_latents
from synthetic.impacts import match_impacts
from synthetic.measure_sound import measure_sound
from tests.dpo.good_clips import SCENES
from tests.model.javisdit.small_codecs import small_audioldm2


@pytest.mark.parametrize("steps", [-8, -2, 4, 8])
def test_decoded_losers_are_late_by_whole_steps(good_latents, tmp_path, steps):
    """Every sound that stays in the clip is 40 ms per step later, within 5 ms, and is the same sound."""
    pipeline = JointAVPipeline.from_pretrained("tiny")
    shifter = Shifter(pipeline, tmp_path)
    assert shifter.step_s == 0.04
    winners, offsets = Winners(good_latents), []
    for number, scene in enumerate(SCENES[:3]):
        winner = winners[number]
        before, after = (
            sound_of(pipeline, winner, audio) for audio in (winner.latents["audio"], shifter.shifted(winner, steps))
        )
        expected = np.array(before.impacts) + steps * shifter.step_s
        expected = expected[(expected > 0.03) & (expected < winner.duration_s - 0.03)]
        assert len(after.impacts) == len(expected)
        offsets += [after.impacts[j] - expected[i] for i, j in match_impacts(expected, after.impacts)]
        assert abs(12 * np.log2(after.pitch_hz / before.pitch_hz)) < 1
        assert 0.5 < after.decay_s / before.decay_s < 2, scene.material
    assert len(offsets) >= 3
    assert np.abs(offsets).max() < 0.005


def sound_of(pipeline, winner, audio):
    tensors = {"audio": torch.from_numpy(audio.astype(np.float32))}
    [sound] = pipeline.decode_audio([to_latents(tensors, winner.size, winner.columns["fps"], 16_000)])
    return measure_sound(sound[0])


def test_the_gap_is_silent_and_padding_stays_where_it_is():
    audio = np.arange(2 * 10 * 3, dtype=np.float16).reshape(2, 10, 3)
    silence = np.full_like(audio, -1)
    late, early = shift_latents(audio, silence, 3, 8), shift_latents(audio, silence, -3, 8)
    assert np.array_equal(late[:, 3:8], audio[:, :5])
    assert np.array_equal(early[:, :5], audio[:, 3:8])
    assert (late[:, :3] == -1).all()
    assert (early[:, 5:8] == -1).all()
    for moved in (late, early):
        assert np.array_equal(moved[:, 8:], audio[:, 8:])
    assert (shift_latents(audio, silence, 9, 8)[:, :8] == -1).all()
    assert np.array_equal(shift_latents(audio, silence, 0, 8), audio)


@pytest.mark.parametrize("num_frames", [33, 65, 81])
def test_loud_padding_of_the_published_codec_is_never_moved(num_frames):
    """Steps that differ between loud and silent padding alone, apart from what convolutions carry over, stay."""
    codec, num_samples = small_audioldm2(), round(num_frames / 16 * 16_000)
    steps, _ = codec.latent_size(num_samples)
    real = codec.num_real_steps(num_samples)
    first_padded = (1 + num_samples // 160) // 4  # the first step with a mel frame past the end
    assert real <= first_padded
    assert 1 <= steps - real <= 2
    audio = np.broadcast_to(np.arange(steps)[None, :, None], (1, steps, 2))
    for shift in (-5, 5):
        moved = shift_latents(audio, np.full_like(audio, -1), shift, real)
        assert set(moved[0, :real, 0].tolist()) <= {-1, *range(real)}


def test_draws_depend_on_seed_and_pair_alone_and_cover_both_signs():
    limits = ShiftRange.parse("0.08-0.16").steps(0.04)
    assert limits == (2, 4)
    drawn = [draw_steps(7, f"p{n}", limits) for n in range(600)]
    assert drawn == [draw_steps(7, f"p{n}", limits) for n in range(600)]
    assert drawn != [draw_steps(8, f"p{n}", limits) for n in range(600)]
    counts = Counter(drawn)
    assert set(counts) == {-4, -3, -2, 2, 3, 4}
    assert all(70 < count < 130 for count in counts.values())


def test_ranges_that_make_no_shift_are_refused():
    for text in ("", "0.2-0.1", "0-0.1", "far", "-0.2"):
        with pytest.raises(ValueError, match="is no range of shifts"):
            ShiftRange.parse(text)
    assert ShiftRange.parse("0.12").steps(0.04) == (3, 3)
    with pytest.raises(ValueError, match="under half a step"):
        ShiftRange.parse("0.01-0.015").steps(0.04)
