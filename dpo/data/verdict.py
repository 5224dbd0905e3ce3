"""The verdict of the signal test on a constructed dataset, and the refusal to train on the mark of a rule.

`dpo.signal_test` writes it into the folder of the dataset; `dpo.train` obeys it. Imports no torch.
Source: docs/upstream/constructed_negatives.md, section 4.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from core.atomic import atomic_write_text
from model.prepare.run import SETTINGS_NAME

VERDICT_NAME = "signal.json"

# signal: the error tells winner from loser by sync. mark: it tells them by the distortion, whatever the other modality
# is. none: it does not tell them. untested: the test was left out.
Verdict = Literal["signal", "mark", "none", "untested"]


def write_verdicts(folder: Path, verdicts: Mapping[str, Verdict], details: Mapping[str, Any]) -> None:
    """Write the verdict of each modality, with details, into a folder."""
    content = {"verdicts": dict(verdicts)} | dict(details)
    atomic_write_text(folder / VERDICT_NAME, json.dumps(content, indent=2) + "\n")


def read_verdicts(folder: Path) -> dict[str, Verdict]:
    """Return the verdict of each modality; none for pairs that no rule made.

    Raises:
        ValueError: the file is damaged, or rules made the pairs and the test is still to come.
    """
    path = folder / VERDICT_NAME
    if not path.is_file():
        if _is_shifted(folder):
            raise ValueError(
                f"{folder} has no {VERDICT_NAME}, so it is not known in which modality its losers differ by sync: "
                "finish it with the same `python -m dpo.construct`."
            )
        return {}
    verdicts = json.loads(path.read_text(encoding="utf-8")).get("verdicts")
    if not isinstance(verdicts, dict) or not set(verdicts.values()) <= set(get_args(Verdict)):
        raise ValueError(
            f"{path} holds no verdicts: make it again with `python -m dpo.signal_test --dataset {folder}`."
        )
    return verdicts


def refuse_marks(folder: Path, strengths: Mapping[str, float]) -> None:
    """Raise ValueError if a preference would be trained in a modality whose verdict is "mark".

    Args:
        folder: training dataset.
        strengths: modality -> strength of its preference, such as beta; 0 trains none.
    """
    for name, verdict in read_verdicts(folder).items():
        if verdict == "mark" and strengths.get(name, 0) > 0:
            raise ValueError(
                f"beta_{name} is above 0, but by the signal test in {folder / VERDICT_NAME} the {name} error tells "
                "losers by the mark of the rule that made them, not by sync, so training on it would spoil the "
                f"{name} for nothing: set beta_{name} 0 (fm_weight still trains on the winner), or ask for it with "
                "train_on_mark true."
            )


def _is_shifted(folder: Path) -> bool:
    path = folder / SETTINGS_NAME
    return path.is_file() and json.loads(path.read_text(encoding="utf-8")).get("distortion") == "shift"
