"""The command that fetches published weights: `python -m model.fetch --output weights --accept_licences`.

    weights/<repository or file>   as upstream lays out its checkpoints folder
    weights/fetched.json           the lock file: source, revision, size and sha256 of every file
    weights/pipeline.json          makes the folder a model for `JointAVPipeline.from_pretrained`

After an interruption, run the command again: it checks existing files and continues where it stopped.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tqdm import tqdm

from core.atomic import atomic_write_text
from core.cli import echo, parse_config
from model.fetch.catalogue import GENERATION, PIPELINE, SOURCES, Component, Source, WebFile
from model.fetch.listing import list_files
from model.fetch.transfer import RemoteFile, UnreachableError, obtain, part_path, received_bytes

LOCK_NAME = "fetched.json"
PIPELINE_NAME = "pipeline.json"

Lock = dict[str, dict[str, Any]]  # by path: component, source, revision, size, sha256; of finished components only


@dataclass(frozen=True, kw_only=True)
class FetchConfig:
    """Settings of `python -m model.fetch`. HF_TOKEN and HF_ENDPOINT have their usual meaning."""

    output: Path = field(metadata={"help": "Folder for the weights, made if missing."})
    components: list[str] = field(
        default_factory=lambda: list(GENERATION),
        metadata={"help": f"Any of {', '.join(SOURCES)}; the default is all that generation needs."},
    )
    hub: str | None = field(
        default=None,
        metadata={
            "help": "A hub's address, or a local folder with <owner>/<name>/..., a Hugging Face cache "
            "(models--<owner>--<name>/snapshots/...) or an earlier --output."
        },
    )
    accept_licences: bool = field(
        default=False, metadata={"help": "Agree to the licences, printed first, that forbid commercial use."}
    )
    dry_run: bool = field(default=False, metadata={"help": "Print the files to fetch, and write nothing."})

    def __post_init__(self) -> None:
        for name in self.components:
            if name not in SOURCES:
                raise ValueError(f"{name!r} is no component: choose from {', '.join(SOURCES)}.")
        if isinstance(self.mirror, Path) and not self.mirror.is_dir():
            raise ValueError(f"hub is {self.hub!r}, which is neither a folder nor an address that begins with http.")

    @property
    def mirror(self) -> str | Path | None:
        """The source for `model.fetch.listing`: a local folder, a hub's address, or None."""
        return self.hub if self.hub is None or self.hub.startswith(("http://", "https://")) else Path(self.hub)


def fetch(config: FetchConfig, sources: Mapping[str, Component] = SOURCES) -> None:
    """Print the licences, then fetch every file of the components into the output folder.

    Raises:
        ValueError: a licence is not accepted, a file is not the one expected, or the disk is too small.
        UnreachableError: a server does not answer.
    """
    wanted = {name: sources[name] for name in config.components}
    _print_components(wanted, config.output)
    if not (config.accept_licences or config.dry_run):
        _refuse_non_commercial(wanted)
    lock = _read_lock(config.output)
    plans = {
        name: [file for source in component.sources for file in _plan(name, source, config, lock)]
        for name, component in wanted.items()
    }
    _check_space([file for plan in plans.values() for file in plan], config)
    if config.dry_run:
        return
    for name, plan in plans.items():
        entries = {file.path: _fetch_file(name, file, config.output) for file in plan}
        lock = {path: entry for path, entry in lock.items() if entry["component"] != name} | entries
        _write_json(config.output / LOCK_NAME, {"files": lock})
    if set(GENERATION) <= {entry["component"] for entry in lock.values()}:
        _write_pipeline(config.output / PIPELINE_NAME)


def main(argv: Sequence[str] | None = None, sources: Mapping[str, Component] = SOURCES) -> int:
    """Run the command; return 0 on success, 1 when a server or the disk fails, 2 on a mistake in the input."""
    config = parse_config(FetchConfig, argv)
    try:
        fetch(config, sources)
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except UnreachableError as error:
        sys.stderr.write(
            f"error: {error}: this machine may have no network, so give --hub a local mirror, or copy the files by "
            f"hand to the paths printed above and run again with --hub {config.output}.\n"
        )
        return 1
    except OSError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def _print_components(components: Mapping[str, Component], output: Path) -> None:
    for name, component in components.items():
        limits = ", no commercial use" if component.non_commercial else ""
        echo(f"{name}: {component.purpose}")
        echo(f"  licence: {component.licence}{limits}")
        for source in component.sources:
            echo(f"  source: {source.description}")
            for destination in source.destinations:
                echo(f"  file: {output / destination}")


def _refuse_non_commercial(components: Mapping[str, Component]) -> None:
    refused = [f"{name} ({one.licence})" for name, one in components.items() if one.non_commercial]
    if refused:
        raise ValueError(
            f"the licence of {' and of '.join(refused)} forbids commercial use: give --accept_licences if you agree "
            "to it, or leave the component out of --components."
        )


def _plan(name: str, source: Source, config: FetchConfig, lock: Lock) -> list[RemoteFile]:
    """Return the component's files of one source; after a complete fetch, those in the lock file, without a server."""
    locked = [
        RemoteFile(path=path, origin=None, **{key: entry[key] for key in ("source", "revision", "size", "sha256")})
        for path, entry in lock.items()
        if entry["component"] == name and entry["source"] == source.name
    ]
    up_to_date = all(source.revision in (None, file.revision) for file in locked)
    whole = all(any(fnmatchcase(file.path, pattern) for file in locked) for pattern in source.destinations)
    if up_to_date and whole and all((config.output / file.path).is_file() for file in locked):
        return locked
    first_fetched = locked[0].revision if locked else None
    files = list_files(source, config.mirror, source.revision or first_fetched)
    if (
        isinstance(source, WebFile) and source.sha256 is None and locked
    ):  # an address has no revision, so the hash must not change
        return [replace(file, sha256=locked[0].sha256) for file in files]
    return files


def _check_space(files: Sequence[RemoteFile], config: FetchConfig) -> None:
    """Print the number and size of missing files, and refuse to start without enough disk space."""
    missing = [file for file in files if not (config.output / file.path).exists()]
    needed = 0
    for file in missing:
        needed += file.transfer_size - received_bytes(part_path(config.output / file.path))
        if config.dry_run:
            echo(f"{config.output / file.path}: {_bytes(file.size)}")
    existing = next(folder for folder in (config.output, *config.output.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    note = " (dry run: nothing written)" if config.dry_run else ""
    echo(f"{len(missing)} of {len(files)} files to fetch, {_bytes(needed)}; {_bytes(free)} free on the disk{note}")
    if needed > free and not config.dry_run:
        raise ValueError(
            f"{config.output} has room for {_bytes(free)}, but {_bytes(needed)} are needed. Choose another --output."
        )


def _fetch_file(component: str, file: RemoteFile, output: Path) -> dict[str, Any]:
    """Fetch or check one file, and return its entry in the lock file."""
    path = output / file.path
    verb = "checked" if path.exists() else "fetched"
    sha256 = obtain(file, path)
    echo(f"{path}: {verb}, {_bytes(file.size)}")
    return {
        "component": component,
        "source": file.source,
        "revision": file.revision,
        "size": file.size,
        "sha256": sha256,
    }


def _read_lock(output: Path) -> Lock:
    path = output / LOCK_NAME
    return json.loads(path.read_text(encoding="utf-8"))["files"] if path.exists() else {}


def _write_pipeline(path: Path) -> None:
    if not path.exists():  # the user may have changed its defaults
        _write_json(path, PIPELINE)
        echo(f"{path}: written; generate with `python -m model.generate --model {path.parent} ...`")


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    atomic_write_text(path, json.dumps(content, indent=2) + "\n")


def _bytes(count: int) -> str:
    return f"{tqdm.format_sizeof(count)}B"


if __name__ == "__main__":
    sys.exit(main())
