"""Position ids are the published ones."""

from __future__ import annotations

import pytest
import torch

from model.javisdit.network.positions import audio_position_ids, rotary_table, video_position_ids
from tests.model.javisdit.golden import RULES, Golden

GOLDEN = "model/position_ids.safetensors"


def grid(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in text.split("x"))


def test_video_ids_equal_the_published_ones():
    golden = Golden(GOLDEN)
    names = [name for name in golden.names if name.startswith("video.")]
    assert names
    for name in names:
        assert torch.equal(video_position_ids(grid(name.split(".")[1])), golden[name])


@pytest.mark.parametrize("published", RULES)
def test_audio_ids_equal_the_published_ones(published):
    golden = Golden(GOLDEN)
    names = [name for name in golden.names if name.startswith(f"{published}.")]
    assert names
    for name in names:
        _, video, audio = name.split(".")
        ids = audio_position_ids(RULES[published], grid(video), grid(audio))
        assert (ids - golden[name]).abs().max() <= 1e-6


@pytest.mark.parametrize("grids", [((7, 1, 1), (95, 1)), ((11, 1, 1), (155, 1)), ((13, 1, 1), (189, 1))])
def test_time_ids_round_as_the_release_does_where_linspace_is_inexact(grids):
    """For 123 of the 15,281 pairs of lengths up to (59, 259), exact arithmetic gives another id than the release."""
    video, audio = grids
    published = torch.linspace(0, video[0] - 1, audio[0], dtype=torch.float64).ceil()
    exact = torch.tensor([-(-t * (video[0] - 1) // (audio[0] - 1)) for t in range(audio[0])], dtype=torch.float64)
    assert torch.equal(audio_position_ids("ta_rope", *grids)[:, 0], published)
    assert not torch.equal(published, exact)


def test_ta_rope_ids_never_collide_with_the_videos():
    video = {tuple(row) for row in video_position_ids((9, 4, 4)).tolist()}
    audio = {tuple(row) for row in audio_position_ids("ta_rope", (9, 4, 4), (26, 8)).tolist()}
    assert not video & audio
    assert len(audio) == 26 * 8


def test_the_papers_formula_is_monotone_and_covers_the_timeline():
    time = audio_position_ids("ta_rope_floor", (9, 4, 4), (26, 8))[::8, 0]
    assert time.tolist() == [t * 9 // 26 for t in range(26)]


def test_an_unknown_rule_names_the_known_ones():
    with pytest.raises(ValueError, match="ta_rope, ta_rope_floor, vanilla"):
        audio_position_ids("rope", (9, 4, 4), (26, 8))


def test_rotary_angles_depend_on_relative_positions_only():
    """Scores of rotated queries and keys are equal for equal offsets along time."""
    cosine, sine = rotary_table("ta_rope", (6, 1, 1), None, (6, 1, 1), 24)
    query, key = torch.randn(2, 12, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    turn = torch.complex(cosine, sine)
    scores = ((query * turn)[:, None] * (key * turn)[None].conj()).sum(-1).real
    assert torch.allclose(scores.diagonal(1), scores[0, 1].expand(5), atol=1e-5)
