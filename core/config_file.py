"""The configuration of a network as JSON beside its weights: fields of a frozen dataclass, nested ones included."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")

_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", NoneType: "null"}


def read_fields(path: Path, published: Config) -> Config:
    """Return `published` with the fields that the file sets; `published` itself where there is no such file.

    Raises:
        ValueError: the file is no JSON object, or `with_fields` refuses its content.
    """
    return with_fields(published, read_object(path), str(path)) if path.is_file() else published


def read_object(path: Path) -> dict[str, Any]:
    """Read the object in a JSON file.

    Raises:
        ValueError: the file holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no JSON file ({error}): fetch or write it again.") from error
    return as_object(content, str(path))


def as_object(content: Any, where: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ValueError(f"{where} holds {content!r} where an object belongs: give {{...}} with names and values.")
    return content


def with_fields(config: Config, values: Any, where: str) -> Config:
    """Return `config` with the fields that `values` sets, also in nested dataclasses.

    Fields may be int, float, bool, str, tuple[int, ...] and the like, unions of these, dataclasses, and mappings, whose
    content `config` itself checks.

    Args:
        values: content read from JSON.
        where: place of `values` in messages: the file, and the keys that lead there.

    Raises:
        ValueError: `values` is no object, a field is unknown, a value is of another type than its field, or the values
            contradict each other; the message names the place and the key.
    """
    hints = get_type_hints(type(config))
    known = [field.name for field in dataclasses.fields(config)]
    changes: dict[str, Any] = {}
    for key, value in as_object(values, where).items():
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
            raise ValueError(
                f"{where} has an unknown key {key!r}: did you mean {nearest!r}? If the file belongs to another model, "
                "move the weights to a folder of their own."
            )
        if dataclasses.is_dataclass(hints[key]):
            changes[key] = with_fields(getattr(config, key), value, f"{where}: {key}")
        elif _fits(value, hints[key]):
            changes[key] = tuple(value) if isinstance(value, list) else value
        else:
            raise ValueError(f"{where} sets {key} to {value!r}: give {_description(hints[key])}.")
    try:
        return dataclasses.replace(config, **changes)
    except ValueError as error:  # of the dataclass, which does not know the file
        raise ValueError(f"{where}: {error}") from error


def _fits(value: Any, kind: Any) -> bool:
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    if kind in _KINDS:
        return type(value) is kind
    if isinstance(kind, UnionType):
        return any(_fits(value, one) for one in get_args(kind))
    if get_origin(kind) is tuple:
        return isinstance(value, list | tuple) and all(_fits(item, get_args(kind)[0]) for item in value)
    return isinstance(value, dict)


def _description(kind: Any) -> str:
    if isinstance(kind, UnionType):
        return " or ".join(map(_description, get_args(kind)))
    if get_origin(kind) is tuple:
        return f"a list, of which each is {_description(get_args(kind)[0])}"
    return _KINDS.get(kind, "an object")
