"""The console script `avdpo`: one name for all commands, as in `avdpo rank --output_dir runs/first`."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from importlib import import_module

from avdpo import __version__
from avdpo.commands import COMMANDS, PREPARE_HELP, module_of_prepare, overview
from avdpo.import_order import prefer_installed


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit status; 2 for a name that is none."""
    name, *arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help", "help"):
        sys.stdout.write(overview() + "\n")
        return 0
    if name in ("-V", "--version"):
        sys.stdout.write(f"avdpo {__version__}\n")
        return 0
    if name not in COMMANDS:
        nearest = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.0)[0]
        sys.stderr.write(
            f"error: unknown command {name!r}; the nearest match is {nearest!r}. `avdpo --help` lists all.\n"
        )
        return 2
    module = COMMANDS[name].module
    if name == "prepare":
        is_help = bool({"-h", "--help"} & set(arguments))
        try:
            module = module_of_prepare(arguments)
        except ValueError as error:
            if is_help:
                sys.stdout.write(PREPARE_HELP + "\n")
                return 0
            sys.stderr.write(f"{PREPARE_HELP}\nerror: {error}\n")
            return 2
        if is_help:
            arguments = ["--help"]
    return _run(name, module, arguments)


def _run(name: str, module: str, arguments: list[str]) -> int:
    prefer_installed()
    sys.argv = [f"avdpo {name}", *arguments]  # what usage lines and Ray show
    try:
        found = import_module(module)
        if hasattr(found, "__path__"):  # a room: its command is in a module of its own
            found = import_module(f"{module}.command")
        return found.main(arguments)
    except KeyboardInterrupt:  # of a command that has no message of its own, or while it is imported
        sys.stderr.write("\nstopped\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
