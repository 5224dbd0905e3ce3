"""Public names that a package imports on first use."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` for a package whose public names are imported on first use.

    Importing the package then costs nothing: torch, Ray and pandas are loaded with the first name that needs them.

    Args:
        package: name of the package, for the error message.
        homes: public name -> module that defines it.

    Returns:
        The two functions. The first raises AttributeError for a name that `homes` does not list, and stores each name
        that it finds in the package, so that the module is looked up once.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return get, names
