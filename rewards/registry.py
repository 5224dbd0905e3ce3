"""Judges and rewards by name: built in, installed as entry points, or given as a dotted path."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from rewards.base import Judge, Reward
from rewards.contract import check_complete

ENTRY_POINT_GROUP = "avdpo.rewards"

# Name -> "module:Class". A module is imported when its name is looked up.
BUILTIN_REWARDS: dict[str, str] = {
    "verifiable": "synthetic.reward:VerifiableReward",
    "videoalign": "rewards.videoalign:VideoAlignReward",
    "audiobox": "rewards.audiobox:AudioBoxReward",
    "imagebind": "rewards.imagebind:ImageBindReward",
    "synchformer": "rewards.synchformer:SynchformerReward",
}

# All rewards, and the networks of evaluation, whose values do not rank candidates.
BUILTIN_JUDGES: dict[str, str] = BUILTIN_REWARDS | {
    "i3d": "evaluation.judges.i3d:I3DJudge",
    "audioclip": "evaluation.judges.audioclip:AudioClipJudge",
    "clip": "evaluation.judges.clip_score:ClipJudge",
    "clap": "evaluation.judges.clap_score:ClapJudge",
    "cavp": "evaluation.judges.cavp:CavpJudge",
    "javis": "evaluation.judges.javis:JavisJudge",
    "av_align": "evaluation.judges.av_align:AVAlignJudge",
}

# Names that stand for several rewards in a list of them.
GROUPS: dict[str, tuple[str, ...]] = {"learned": ("videoalign", "audiobox", "imagebind", "synchformer")}


class MissingPackageError(ImportError):
    """A judge's package is not installed; the message holds the command that installs it."""


def get_reward(name: str) -> type[Reward]:
    """Return the class of a reward.

    Args:
        name: a registered name in any case, with `-` or `_`; or "package.module:Class", taken as it is.

    Raises:
        ValueError: the name is unknown, two rewards claim one name, or the target is not a complete Reward.
        MissingPackageError: the reward's module needs a package that is not installed.
    """
    reward: type[Reward] = _get(name, Reward, available_rewards)
    return reward


def get_judge(name: str) -> type[Judge]:
    """Return the class of a reward or of another judge; name and errors as in `get_reward`."""
    judge: type[Judge] = _get(name, Judge, available_judges)
    return judge


def expand_names(names: Iterable[str]) -> list[str]:
    """Return the names with each group, such as "learned", replaced by its rewards.

    Raises:
        ValueError: a reward is named twice, by itself or by a group.
    """
    named_by: dict[str, str] = {}  # reward -> the name or group that it came from
    expanded: list[str] = []
    for name in names:
        for member in GROUPS.get(normalise_name(name), (name.strip(),)):
            key = member if ":" in member else normalise_name(member)
            if key in named_by:
                raise ValueError(
                    f"The reward {member!r} is named twice, by {named_by[key]!r} and by {name!r}, and a clip is scored "
                    "once. Leave out one of the two."
                )
            named_by[key] = name
            expanded.append(member)
    return expanded


def check_distinct(rewards: Iterable[Reward | type[Reward]]) -> None:
    """Raise ValueError where two rewards share a name, by which scores are stored, or a column of the table."""
    owners: dict[str, str] = {}
    for reward in rewards:
        columns = (f"yield the column {column!r}" for column in reward.columns)
        for claim in (f"have the name {reward.name!r}", *columns):
            if claim in owners:
                raise ValueError(
                    f"The rewards {owners[claim]!r} and {reward.name!r} both {claim}, and a table of scores has room "
                    "for one. Choose one of the two rewards."
                )
            owners[claim] = reward.name


def available_rewards() -> dict[str, str]:
    """Return normalised name -> "module:Class" of every built-in and installed reward."""
    return _with_installed(BUILTIN_REWARDS)


def available_judges() -> dict[str, str]:
    """Return normalised name -> "module:Class" of every reward and every other built-in judge."""
    return _with_installed(BUILTIN_JUDGES)


def normalise_name(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def _get(name: str, kind: type[Any], available: Callable[[], dict[str, str]]) -> Any:
    if ":" in name:
        return _load_target(name, kind)
    targets = available()
    key = normalise_name(name)
    if key in GROUPS:
        raise ValueError(f"{name!r} stands for several rewards, and one is wanted: {', '.join(GROUPS[key])}.")
    if key not in targets:
        close = difflib.get_close_matches(key, [*targets, *GROUPS], n=1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        raise ValueError(
            f"There is no {kind.__name__.lower()} {name!r}. {hint}Available: {', '.join(sorted([*targets, *GROUPS]))}; "
            'or give a class of your own as "package.module:Class".'
        )
    return _load_target(targets[key], kind)


def _with_installed(builtin: dict[str, str]) -> dict[str, str]:
    targets: dict[str, str] = {}
    installed = ((point.name, point.value) for point in entry_points(group=ENTRY_POINT_GROUP))
    for name, target in (*builtin.items(), *installed):
        key = normalise_name(name)
        if key in GROUPS:
            raise ValueError(
                f"The reward {target} is called {name!r}, which stands for {', '.join(GROUPS[key])}. "
                f"Rename the entry point in group {ENTRY_POINT_GROUP!r}."
            )
        if key in targets:
            raise ValueError(
                f"Two judges are called {key!r}: {targets[key]} and {target}. Names must differ, ignoring case, '-' "
                f"and '_'. Rename the entry point in group {ENTRY_POINT_GROUP!r}, or uninstall one of the packages."
            )
        targets[key] = target
    return targets


def _load_target(target: str, kind: type[Any]) -> Any:
    what = kind.__name__
    module_name, _, class_name = target.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), class_name)):
        raise ValueError(f"{target!r} is no {what.lower()}: give a class of your own as 'package.module:Class'.")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        raise _explain_missing(target, what, module_name, error.name or "") from error
    judge = getattr(module, class_name, None)
    if judge is None:
        classes = {name: value for name, value in vars(module).items() if isinstance(value, type)}
        names = [name for name, value in classes.items() if issubclass(value, kind) and value is not kind]
        close = ", ".join(difflib.get_close_matches(class_name, names, n=1)) or ", ".join(names) or "none"
        raise ValueError(
            f"{what} {target!r} cannot be loaded: module {module_name} has no {class_name!r}. "
            f"{what}s in it: {close}. Correct the part after the colon."
        )
    if not (isinstance(judge, type) and issubclass(judge, kind)):
        raise ValueError(f"{target!r} is {judge!r}, which is no subclass of rewards.{what}. Derive the class from it.")
    check_complete(target, judge)
    return judge


def _explain_missing(target: str, what: str, module_name: str, missing: str) -> Exception:
    if module_name == missing or module_name.startswith(f"{missing}."):
        return ValueError(
            f"{what} {target!r} cannot be loaded: there is no module {missing!r} on the Python path. "
            "Correct the part before the colon, or run from the folder that holds the module."
        )
    package = missing.partition(".")[0].replace("_", "-")
    return MissingPackageError(
        f"{what} {target!r} needs the package {missing!r}, which is not installed. Install it: pip install {package}"
    )
