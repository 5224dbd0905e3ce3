"""The choice of judges for a run: those of its metrics whose weights and packages are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from evaluation.judges.metrics import Metric
from rewards.base import Judge, Protocol
from rewards.registry import get_judge
from rewards.weights import PRESETS, weights_identity, weights_in

DEFAULT_FOLDER = "weights"  # the folder that the advice fetches to where the user gave none
# Packages beyond the project's own dependencies: modules, and the command that installs them.
PACKAGES = {"av_align": (("librosa", "cv2"), "pip install librosa opencv-python-headless")}


@dataclass(frozen=True)
class Chosen:
    """A judge as a run uses it. Its values are stored by name, `version` and `weights`."""

    judge: type[Judge]
    version: str  # under the run's protocol
    path: str | None  # argument of `load`; None for a judge without weights
    weights: str | None  # changes when the content of the files does

    @property
    def key(self) -> str:
        """The folder of its values in the cache."""
        return "-".join(part for part in (self.judge.name, self.version, self.weights) if part)


@dataclass(frozen=True)
class Skipped:
    """A metric that cannot be computed, and what makes it computable."""

    metric: str
    reason: str
    command: str | None

    @property
    def advice(self) -> str:
        return self.reason + (f". Get it with: {self.command}" if self.command else "")


def network_name(judge: str) -> str:
    """Return the judge whose network a judge uses: AVHScore and JavisScore ("javis") are ImageBind's."""
    return get_judge(judge).shares_weights_of or judge


def choose_judges(
    metrics: Sequence[Metric], weights: str | None, protocol: Protocol
) -> tuple[dict[str, Chosen], list[Skipped]]:
    """Return the judges that the metrics need, by name, and the metrics that cannot be computed. Loads nothing.

    Args:
        weights: the folder that `model.fetch` filled, in which a network may also lie in a folder of its judge's name;
            or "tiny" for the presets of the rewards.
    """
    chosen: dict[str, Chosen] = {}
    skipped: list[Skipped] = []
    for metric in metrics:
        if metric.judge in chosen:
            continue
        judge = get_judge(metric.judge)
        modules, install = PACKAGES.get(metric.judge, ((), ""))
        if absent := [module for module in modules if find_spec(module) is None]:
            skipped.append(Skipped(metric.name, f"needs the package {' and '.join(absent)}", install))
            continue
        found = None
        if judge.published is not None:
            found = _find(judge, judge.published, weights)
            if found is None:
                skipped.append(_without_weights(metric, judge.published, weights))
                continue
        chosen[metric.judge] = Chosen(
            judge,
            judge.version_under(protocol),
            None if found is None else str(found.absolute()),  # not resolved: the name of a link may name the format
            None if found is None else weights_identity(judge, found),
        )
    return chosen, skipped


def _find(judge: type[Judge], published: str, weights: str | None) -> Path | None:
    if weights is None:
        return None
    return weights_in(weights, judge.shares_weights_of or judge.name, published, *judge.also_published)


def _without_weights(metric: Metric, published: str, weights: str | None) -> Skipped:
    where, output = f"{weights} has no such file or folder", weights
    if weights is None:
        where, output = "no --weights were given", DEFAULT_FOLDER
    elif weights in (preset.name for preset in PRESETS.iterdir()):
        where, output = f"the preset {weights!r} has none of it", DEFAULT_FOLDER
    component = network_name(metric.judge)
    command = f"python -m model.fetch --components {component} --output {output} --accept_licences"
    return Skipped(metric.name, f"needs the weights {published}, and {where}", command)
