"""A ranking in which ground truth wins nearly all pairs is called out by name, with what to do."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from pipeline.rank.command import main
from pipeline.rank.pairing import rank_pairs
from pipeline.rank.text import ground_truth_warning
from tests.pipeline.rank.ranking_tables import one_prompt
from tests.pipeline.rank.test_rank_stage import no_plots, write_tables  # noqa: F401  (no_plots is a fixture)

REAL, GOOD, BAD = (9, 9, 9), (1, 1, 1), (0, 0, 0)


def table(num_won: int, num_lost: int = 0, num_generated: int = 2) -> pd.DataFrame:
    """Return prompts whose best clip is the real one, then prompts in which it is the worst."""
    fill = [(0.5, 0.5, 0.5)] * (num_generated - 2)
    real_last = [(-9, -9, -9), GOOD, BAD, *fill]
    prompts = [[REAL, GOOD, BAD, *fill]] * num_won + [real_last] * num_lost
    return pd.concat(
        [one_prompt(*clips, first_index=-1, prompt_id=f"p{number:04d}") for number, clips in enumerate(prompts)],
        ignore_index=True,
    )


def warning_of(frame: pd.DataFrame, ground_truth: str = "any") -> str | None:
    return ground_truth_warning(rank_pairs(frame, ground_truth=ground_truth).report)


def test_the_winner_of_all_pairs_is_named_with_what_to_do():
    assert warning_of(table(64)) == (
        "ground truth is the winner of all 64 pairs: the pairs teach real against generated, not better against worse. "
        "Set ground_truth to never and sample 4 or more candidates per prompt."
    )
    assert warning_of(table(64, num_generated=8)).endswith("Set ground_truth to never.")


def test_nearly_all_pairs_are_enough_and_a_good_part_is_not():
    assert warning_of(table(19, 1)).startswith("ground truth is the winner of 19 of 20 pairs")
    assert warning_of(table(17, 3)) is None


@pytest.mark.parametrize("frame", [table(8), table(8).head(0)])
def test_pairs_of_generated_clips_are_not_warned_of(frame: pd.DataFrame):
    assert warning_of(frame, "never") is None


def test_the_command_prints_it_at_every_run_and_writes_it(tmp_path: Path, capsys):
    write_tables(tmp_path, table(20))
    for _ in range(2):  # the second run finds the pairs made
        assert main(["--output_dir", str(tmp_path)]) == 0
        assert "rank: warning: ground truth is the winner of all 20 pairs" in capsys.readouterr().out
    assert "warning: ground truth is the winner" in (tmp_path / "pairs" / "ranking.txt").read_text()
    assert main(["--output_dir", str(tmp_path), "--ground_truth", "never"]) == 0
    assert "warning" not in capsys.readouterr().out
