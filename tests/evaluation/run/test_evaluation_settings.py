"""Mistakes in the settings of `python -m evaluation.run` are found before anything is read, and --help helps."""

from __future__ import annotations

import pytest

from evaluation.run.command import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metrics", "fvdd"], "no metric or group 'fvdd'. Did you mean 'fvd'?"),
        (["--limit", "0"], "limit is 0"),
        (["--estimate"], "give limit, and multiply"),
        (["--protocol", "paper"], "invalid choice: 'paper'"),
    ],
)
def test_settings_are_checked_first(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--samples", "a", "--benchmark", "b.csv", *arguments])
    assert message in capsys.readouterr().err


def test_help_names_groups_metrics_and_protocols(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for words in ("sample_0000.mp4", "verifiable (of Bounce, not in all)", "javis_score", "{correct,javisbench}"):
        assert words in text
