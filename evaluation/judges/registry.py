"""The extractors by name, and which of them a run can use: those whose weights are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from core.file_identity import files_identity, visible_files
from evaluation.judges.base import Extractor
from evaluation.judges.from_rewards import reward_extractor
from evaluation.judges.metrics import Metric
from rewards.base import Protocol
from rewards.weights import PRESETS

# Name -> "module:Class"; nothing is imported before it is asked for.
EXTRACTORS: dict[str, str] = {
    "i3d": "evaluation.judges.i3d.extractor:I3DExtractor",
    "audioclip": "evaluation.judges.audioclip.extractor:AudioClipExtractor",
    "clip": "evaluation.judges.clip_score:ClipExtractor",
    "clap": "evaluation.judges.clap_score:ClapExtractor",
    "cavp": "evaluation.judges.cavp.extractor:CavpExtractor",
    "javis": "evaluation.judges.javis:JavisExtractor",
    "av_align": "evaluation.judges.av_align:AVAlignExtractor",
}
# Those that are rewards as well.
FROM_REWARDS = ("videoalign", "audiobox", "imagebind", "synchformer", "verifiable")
# Whose weights are another one's too. Of the others the component in `model.fetch` has the extractor's name.
SHARED_WEIGHTS = {"javis": "imagebind"}
DEFAULT_FOLDER = "weights"  # where the advice fetches to, unless a folder was given
# Other names under which weights are published.
ALSO_PUBLISHED = {"i3d": ("i3d_torchscript.pt",)}
# What the project itself does not need: modules, and how they are installed.
PACKAGES = {"av_align": (("librosa", "cv2"), "pip install librosa opencv-python-headless")}


@dataclass(frozen=True)
class Chosen:
    """An extractor as a run uses it. Its values are kept by name, `version` and `weights`."""

    name: str
    version: str  # under the run's protocol
    path: str | None  # what `load` is given; None for one without weights
    weights: str | None  # changes when the content of the files does

    @property
    def key(self) -> str:
        """The folder of its values in the cache."""
        return "-".join(part for part in (self.name, self.version, self.weights) if part)


@dataclass(frozen=True)
class Skipped:
    """A metric that cannot be computed here, and what would change that."""

    metric: str
    reason: str
    command: str | None

    @property
    def advice(self) -> str:
        return self.reason + (f". Get it with: {self.command}" if self.command else "")


def get_extractor(name: str) -> type[Extractor]:
    """The class of an extractor; imports its module."""
    if name in FROM_REWARDS:
        return reward_extractor(name)
    module, _, class_name = EXTRACTORS[name].partition(":")
    return getattr(import_module(module), class_name)


def judge_of(extractor: str) -> str:
    """Whose network it is that judges: AVHScore and JavisScore are ImageBind's, no more held out than its cosines."""
    return SHARED_WEIGHTS.get(extractor, extractor)


def choose_extractors(
    metrics: Sequence[Metric], weights: str | None, protocol: Protocol
) -> tuple[dict[str, Chosen], list[Skipped]]:
    """The extractors that the metrics need, by name, and the metrics that have to do without. Loads nothing.

    Args:
        weights: the folder that `model.fetch` filled, in which a network may also lie in a folder of its extractor's
            name; "tiny" for the presets of the rewards.
    """
    chosen: dict[str, Chosen] = {}
    skipped: list[Skipped] = []
    for metric in metrics:
        if metric.extractor in chosen:
            continue
        extractor = get_extractor(metric.extractor)
        modules, install = PACKAGES.get(metric.extractor, ((), ""))
        if absent := [module for module in modules if find_spec(module) is None]:
            skipped.append(Skipped(metric.name, f"needs the package {' and '.join(absent)}", install))
            continue
        found = None
        if extractor.published is not None:
            found = find_weights(metric.extractor, extractor.published, weights)
            if found is None:
                skipped.append(_without_weights(metric, extractor.published, weights))
                continue
        chosen[metric.extractor] = Chosen(
            metric.extractor,
            extractor.version_under(protocol),
            None if found is None else str(found.absolute()),  # not resolved: a link's own name tells what it is
            None if found is None else _identity(extractor, found),
        )
    return chosen, skipped


def find_weights(name: str, published: str, weights: str | None) -> Path | None:
    """The file or folder of an extractor's weights in the folder `weights`, or that of the preset; None without one."""
    if weights is None:
        return None
    folder, own = Path(weights), judge_of(name)
    names = (published, *ALSO_PUBLISHED.get(name, ()), own)
    candidates = (PRESETS / weights / own, *(folder / one for one in names))
    return next((path for path in candidates if path.exists()), None)


def _without_weights(metric: Metric, published: str, weights: str | None) -> Skipped:
    where, output = f"{weights} has no such file or folder", weights
    if weights is None:
        where, output = "no --weights were given", DEFAULT_FOLDER
    elif weights in (preset.name for preset in PRESETS.iterdir()):
        where, output = f"the preset {weights!r} has none of it", DEFAULT_FOLDER
    component = judge_of(metric.extractor)
    command = f"python -m model.fetch --components {component} --output {output} --accept_licences"
    return Skipped(metric.name, f"needs the weights {published}, and {where}", command)


def _identity(extractor: type[Extractor], found: Path) -> str:
    files = [file for path in (found, *extractor.companions(found)) for file in visible_files(path)]
    return files_identity(files, found)  # as pipeline.score has it, so that its scores compare with these
