"""Functions that every command uses: parsing of its configuration, output lines, and the summary of a stage.

A finished stage must return within seconds, so nothing here imports torch. `TrlParser`, which `dpo.train` uses
directly, turns the dataclass into flags; it was measured at 0.25 s to import (trl 1.16, without torch).
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import yaml

from core.atomic import atomic_write_text
from core.storage import StoragePath, is_uri, storage_path

__all__ = [
    "StageSummary",
    "atomic_write_text",
    "config_to_dict",
    "config_to_yaml",
    "echo",
    "package_versions",
    "parse_config",
    "program_name",
    "save_config",
]

Config = TypeVar("Config")
CONSOLE_SCRIPT = "avdpo "  # avdpo.__main__ sets sys.argv[0] to this and its subcommand


def parse_config(
    config_class: type[Config], argv: Sequence[str] | None = None, *, positional: str | None = None, about: str = ""
) -> Config:
    """Build a dataclass from `--config file.yaml` and flags: command line over YAML over the field's default.

    Fields may be str, int, float, bool, Path, StoragePath (which takes URIs too), Literal, dict, list[...] of these,
    any of them `| None`, or `str | dict`, with `metadata={"help": ...}`. `--key value`, `--key=value` and dashes for
    underscores are accepted, `--dry_run` alone means true, a dict is written as YAML (`--overrides '{a: 1}'`) and
    replaces the whole dict.
    A mistake (unknown key or flag, wrong type, ValueError from `__post_init__`) ends the program with status 2 and one
    line on stderr, as argparse does. `positional` names a list field that also takes the arguments before the first
    flag; --help shows `about`.
    """
    from trl import TrlParser  # late: StageSummary and echo are used where trl is not

    first = f"{positional.upper()} " if positional else ""
    usage = f"%(prog)s {first}[--config FILE.yaml] [--name value ...]"  # all flags would bury the line on what is wrong
    parser = TrlParser([config_class], prog=program_name(), allow_abbrev=False, usage=usage, description=about)  # type: ignore[list-item]
    parser.add_argument("--config", type=Path, help="YAML file with any of these fields; flags override it")
    actions = {field.name: _action(parser, field.name) for field in dataclasses.fields(config_class)}  # type: ignore[arg-type]
    hints = get_type_hints(config_class, include_extras=True)
    for name, action in actions.items():
        action.help = action.help.replace("%", "%%") if action.help else "default: %(default)s"
        if dict in (kinds := {get_origin(hint) or hint for hint in (hints[name], *get_args(hints[name]))}):
            action.type = _yaml_mapping_or_name if str in kinds else _yaml_mapping
        elif paths := [kind for kind in _kinds(hints[name]) if kind in (Path, StoragePath)]:
            action.type = _path_type(action.type, _storage_path if StoragePath in paths else _local_path)

    argv = list(sys.argv[1:] if argv is None else argv)
    if positional and argv and not argv[0].startswith("-"):
        argv.insert(0, f"--{positional}")
    config_path = _config_path(argv)
    try:
        if config_path is not None:
            parser.set_defaults_with_config(**_yaml_values(config_path, actions))
        config, _, unknown = parser.parse_args_into_dataclasses(
            argv, return_remaining_strings=True, look_for_args_file=False
        )
    except (ValueError, OSError) as error:
        parser.error(str(error))
    if unknown:
        parser.error(_unknown("argument", unknown[0], list(parser._option_string_actions)))
    return config


def program_name() -> str:
    """Return the running command as the user typed it: `avdpo rank`, or `python -m pipeline.rank`."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    if module is None or sys.argv[0].startswith(CONSOLE_SCRIPT):
        return Path(sys.argv[0]).name
    return f"python -m {module.name.removesuffix('.__main__')}"


def config_to_dict(config: Any) -> dict[str, Any]:
    """Return the fields of a dataclass as plain JSON and YAML values: paths become strings, tuples lists."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def config_to_yaml(config: Any) -> str:
    """Return the resolved configuration as YAML that `--config` reads back."""
    return yaml.safe_dump(config_to_dict(config), sort_keys=False, allow_unicode=True).rstrip("\n")


def save_config(config: Any, path: str | Path) -> None:
    """Write the resolved configuration to the file `path`, atomically."""
    atomic_write_text(path, config_to_yaml(config) + "\n")


def echo(text: str = "") -> None:
    """Write a line of a command's result to stdout (progress goes to stderr)."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def package_versions(*names: str) -> dict[str, str]:
    """Return the installed versions of packages without importing them; "missing" if there is none."""
    return {name: _version(name) for name in names}


@dataclass(frozen=True)
class StageSummary:
    """Result of a stage. `done` counts all finished rows, `skipped` the finished rows of earlier runs among them."""

    stage: str
    wanted: int
    done: int
    skipped: int
    failed: int
    seconds: float
    settings: dict[str, Any]
    versions: dict[str, str]

    @property
    def rate(self) -> float:
        """Rows per second that this run finished."""
        return (self.done - self.skipped) / self.seconds if self.seconds > 0 else 0.0

    def line(self) -> str:
        """Return a line such as `sample: wanted 240, done 240 (skipped 0), failed 0, 92.1 s, 2.6/s`."""
        return (
            f"{self.stage}: wanted {self.wanted}, done {self.done} (skipped {self.skipped}), failed {self.failed}, "
            f"{self.seconds:.1f} s, {self.rate:.1f}/s"
        )

    def write(self, folder: str | Path) -> None:
        """Write `summary.json` into `folder`, atomically."""
        content = dataclasses.asdict(self) | {"rate": round(self.rate, 4)}
        text = json.dumps(content, indent=2, ensure_ascii=False, default=str)
        atomic_write_text(storage_path(folder) / "summary.json", text + "\n")


def _action(parser: argparse.ArgumentParser, name: str) -> argparse.Action:
    return parser._option_string_actions[f"--{name}"]


def _config_path(argv: list[str]) -> Path | None:
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config", type=Path)
    return finder.parse_known_args(argv)[0].config


def _yaml_values(path: Path, actions: dict[str, argparse.Action]) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}: write `key: value` lines.")
    for key in content:
        if key not in actions:
            raise ValueError(f"{path}: {_unknown('key', str(key), list(actions))}")
    return {key: _yaml_value(path, key, actions[key], value) for key, value in content.items()}


def _yaml_value(path: Path, key: str, action: argparse.Action, value: Any) -> Any:
    """Convert a YAML value to the type of its field, as the command line does."""
    is_list = action.nargs == "+"
    is_dict = action.type is _yaml_mapping or (action.type is _yaml_mapping_or_name and isinstance(value, dict))
    if value is None and action.default is None:
        return None
    if isinstance(value, list) != is_list or isinstance(value, dict) != is_dict:
        wanted = "a list" if is_list else "a mapping" if is_dict else "a single value"
        raise ValueError(f"{path}: {key} is {value!r}, but must be {wanted}.")
    if is_dict:
        return value
    values = [_convert(path, key, action, item) for item in (value if is_list else [value])]
    return values if is_list else values[0]


def _convert(path: Path, key: str, action: argparse.Action, item: Any) -> Any:
    assert callable(action.type)
    try:
        converted = action.type(str(item))
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise ValueError(f"{path}: {key} has the wrong type: {error}") from error
    if action.choices is not None and converted not in action.choices:
        raise ValueError(f"{path}: {key} is {item!r}, but must be one of {', '.join(map(str, action.choices))}.")
    return converted


def _yaml_mapping(text: str) -> dict[str, Any]:
    value = yaml.safe_load(text)
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is not a YAML mapping such as '{{key: value}}'")
    return value


def _yaml_mapping_or_name(text: str) -> dict[str, Any] | str:
    return _yaml_mapping(text) if text.lstrip().startswith("{") else text


def _kinds(hint: Any) -> list[Any]:
    """Return a type and all types inside it: `list[Path] | None` contains Path."""
    inner = () if get_origin(hint) is Annotated else get_args(hint)
    return [hint, *(kind for one in inner for kind in _kinds(one))]


def _path_type(parse: Any, to_path: Callable[[str], Path]) -> Callable[[str], Path | None]:
    """Return `to_path`, with None for a text that the parser reads as None."""
    return lambda text: None if parse(text) is None else to_path(text)


def _storage_path(text: str) -> Path:
    try:
        return storage_path(text)
    except ValueError as error:  # argparse hides the message of a ValueError
        raise argparse.ArgumentTypeError(str(error)) from error


def _local_path(text: str) -> Path:
    if is_uri(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is a URI, but must be a local path here. Copy it first, for example `aws s3 sync {text} DIR`"
        )
    return Path(text)


def _unknown(kind: str, name: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(name.split("=")[0], known, n=1, cutoff=0.0)
    return f"unknown {kind} {name!r}; the nearest match is {nearest[0]!r}." if nearest else f"unknown {kind} {name!r}."


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"
