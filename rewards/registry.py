"""Rewards by name: built in, installed by others as entry points, or given as a dotted path."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import entry_points

from rewards.base import Reward
from rewards.metrics import MODALITY_METRICS

ENTRY_POINT_GROUP = "avdpo.rewards"

# Name -> "module:Class". Nothing is imported before it is asked for.
BUILTIN_REWARDS: dict[str, str] = {
    "verifiable": "synthetic.reward:VerifiableReward",
    "videoalign": "rewards.videoalign:VideoAlignReward",
    "audiobox": "rewards.audiobox:AudioBoxReward",
    "imagebind": "rewards.imagebind:ImageBindReward",
    "synchformer": "rewards.synchformer:SynchformerReward",
}

# Names that stand for several rewards in a list of them.
GROUPS: dict[str, tuple[str, ...]] = {"learned": ("videoalign", "audiobox", "imagebind", "synchformer")}

_ATTRIBUTES = ("name", "version", "columns", "higher_is_better", "needs", "licence")
_NEEDS = ("video", "audio", "text")
# What else stands in a table of scores, or is made of its metrics.
_RESERVED = frozenset(
    {
        "candidate_id",
        "prompt_id",
        "prompt",
        "video_path",
        "audio_path",
        "error",
        "reasons",
        *MODALITY_METRICS,
        "overall",
    }
)


class MissingPackageError(ImportError):
    """A reward's package is not installed; the message holds the line that installs it."""


def get_reward(name: str) -> type[Reward]:
    """The class of a reward.

    Args:
        name: a registered name in any case, with `-` or `_`; or "package.module:Class", taken as it is.

    Raises:
        ValueError: the name is unknown, two rewards claim one name, or the target is not a complete Reward.
        MissingPackageError: the reward's module needs a package that is not installed.
    """
    if ":" in name:
        return _load_target(name)
    targets = available_rewards()
    key = normalise_name(name)
    if key in GROUPS:
        raise ValueError(f"{name!r} stands for several rewards, and one is wanted: {', '.join(GROUPS[key])}.")
    if key not in targets:
        close = difflib.get_close_matches(key, [*targets, *GROUPS], n=1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        raise ValueError(
            f"There is no reward {name!r}. {hint}Available: {', '.join(sorted([*targets, *GROUPS]))}; "
            'or give a class of your own as "package.module:Class".'
        )
    return _load_target(targets[key])


def expand_names(names: Iterable[str]) -> list[str]:
    """The names with each group, such as "learned", replaced by its rewards.

    Raises:
        ValueError: a reward is named twice, by itself or by a group.
    """
    named_by: dict[str, str] = {}  # reward -> what named it
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
    """ValueError where two rewards share a name, by which scores are stored, or a column, of which a table has one."""
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
    """Normalised name -> "module:Class" of every built-in and installed reward."""
    installed = ((point.name, point.value) for point in entry_points(group=ENTRY_POINT_GROUP))
    return _merge([*BUILTIN_REWARDS.items(), *installed])


def normalise_name(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def _merge(items: Iterable[tuple[str, str]]) -> dict[str, str]:
    targets: dict[str, str] = {}
    for name, target in items:
        key = normalise_name(name)
        if key in GROUPS:
            raise ValueError(
                f"The reward {target} is called {name!r}, which stands for {', '.join(GROUPS[key])}. "
                f"Rename the entry point in group {ENTRY_POINT_GROUP!r}."
            )
        if key in targets:
            raise ValueError(
                f"Two rewards are called {key!r}: {targets[key]} and {target}. Names must differ, ignoring case, '-' "
                f"and '_'. Rename the entry point in group {ENTRY_POINT_GROUP!r}, or uninstall one of the packages."
            )
        targets[key] = target
    return targets


def _load_target(target: str) -> type[Reward]:
    module_name, _, class_name = target.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), class_name)):
        raise ValueError(f"{target!r} is no reward: give a class of your own as 'package.module:Class'.")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        raise _explain_missing(target, module_name, error.name or "") from error
    reward = getattr(module, class_name, None)
    if reward is None:
        classes = {name: value for name, value in vars(module).items() if isinstance(value, type)}
        names = [name for name, value in classes.items() if issubclass(value, Reward) and value is not Reward]
        close = ", ".join(difflib.get_close_matches(class_name, names, n=1)) or ", ".join(names) or "none"
        raise ValueError(
            f"Reward {target!r} cannot be loaded: module {module_name} has no {class_name!r}. "
            f"Rewards in it: {close}. Correct the part after the colon."
        )
    _check_complete(target, reward)
    return reward


def _explain_missing(target: str, module_name: str, missing: str) -> Exception:
    if module_name == missing or module_name.startswith(f"{missing}."):
        return ValueError(
            f"Reward {target!r} cannot be loaded: there is no module {missing!r} on the Python path. "
            "Correct the part before the colon, or run from the folder that holds the module."
        )
    package = missing.partition(".")[0].replace("_", "-")
    return MissingPackageError(
        f"Reward {target!r} needs the package {missing!r}, which is not installed. Install it: pip install {package}"
    )


def _check_complete(target: str, reward: object) -> None:
    if not (isinstance(reward, type) and issubclass(reward, Reward)):
        raise ValueError(f"{target!r} is {reward!r}, which is no subclass of rewards.Reward. Derive the class from it.")
    missing = [name for name in _ATTRIBUTES if not hasattr(reward, name)]
    if missing:
        raise ValueError(f"Reward {target!r} does not say its {', '.join(missing)}. Set them as class attributes.")
    if inspect.isabstract(reward):
        raise ValueError(f"Reward {target!r} has no method score(clips, prompts). Give it one; see rewards/base.py.")
    if isinstance(reward.needs, str) or not reward.needs or not set(reward.needs) <= set(_NEEDS):
        raise ValueError(  # of what it does not name nothing is decoded
            f"Reward {target!r} says that it needs {reward.needs!r}. Make needs a frozenset of {', '.join(_NEEDS)}."
        )
    if taken := _RESERVED.intersection(reward.columns):
        raise ValueError(
            f"Reward {target!r} yields the column {min(taken)!r}, which means something else in tables of scores. "
            "Rename it."
        )
    if set(reward.columns) != set(reward.higher_is_better):
        raise ValueError(
            f"Reward {target!r} yields the columns {list(reward.columns)} but gives directions for "
            f"{list(reward.higher_is_better)}. Make higher_is_better name each column once."
        )
