"""Paths of tables and media: local paths, or URIs of an object store such as s3://bucket/runs/first.

A local place is a plain `pathlib.Path`. A remote one is a `UPath` of `universal-pathlib`, which has the same methods
and is typed as `Path`, but is no `Path` and no `os.PathLike`: code that needs a local file fails on it at once, and
uses `local_copy` instead. Credentials and endpoint come from the environment (AWS_ACCESS_KEY_ID,
AWS_ENDPOINT_URL, ...), so they are the same on the driver and in its workers.
"""

from __future__ import annotations

import os
import posixpath
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Annotated, Any

# A field of a command's configuration with this type takes URIs too; one that is a plain `Path` refuses them.
StoragePath = Annotated[Path, "or a URI"]

TEMPORARY_FOLDER_PREFIX = "avdpo-"  # of folders in TMPDIR for files on the way to or from an object store

_TOP_FOLDER = re.compile(r"(?:\.\./)*[^/]+/")
_URI = re.compile(r"([a-z][a-z0-9+.-]*)://")
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}  # protocol -> extra of this package
# Errors, besides OSError, of libraries that only an extra installs.
_CLIENT_ERRORS = (("botocore.exceptions", "BotoCoreError"), ("google.auth.exceptions", "GoogleAuthError"))


def is_uri(text: str) -> bool:
    return _URI.match(text) is not None


def storage_path(path: str | Path) -> Path:
    """Return the path that a text names; a path is returned unchanged.

    The bucket of a URI is looked up once per process.

    Raises:
        ValueError: the package for this kind of URI is not installed, the bucket does not exist, or it cannot be
            reached with the credentials in the environment.
    """
    if not isinstance(path, str):
        return path
    protocol = _URI.match(path)
    if protocol is None:
        return Path(path)
    if protocol[1] == "file":
        return Path(path.removeprefix(protocol[0]))
    remote = _remote_path(path, protocol[1])
    if protocol[1] in _EXTRAS:
        _check_bucket(protocol[0] + remote.path.partition("/")[0])
    return remote


def is_local(path: Path) -> bool:
    return isinstance(path, Path)


def resolve_in(folder: Path, path: str) -> Path:
    """Return the file that a table in `folder` names by a path relative to it, an absolute path, or a URI."""
    if is_uri(path):
        return storage_path(path)
    if is_local(folder) or os.path.isabs(path):
        return Path(folder, path) if is_local(folder) else Path(path)
    return (folder / path).resolve()  # an object store has no ".."


def relocation(old: Path, new: Path) -> Callable[[str], str]:
    """Return a function that rewrites the file names of a table in `old` for a table in `new`.

    The new names are relative where both folders lie in the same store.
    """
    if is_local(old) and is_local(new):
        prefix = os.path.relpath(os.path.abspath(old), os.path.abspath(new))
    elif is_local(old) or is_local(new) or _split(old)[0] != _split(new)[0]:
        return lambda path: str(resolve_in(old.absolute(), path))
    else:
        prefix = posixpath.relpath(_split(old)[1], _split(new)[1])

    def move(path: str) -> str:
        return path if prefix == "." or is_uri(path) or os.path.isabs(path) else _joined(prefix, path)

    return move


@contextmanager
def local_copy(path: str | Path) -> Iterator[Path]:
    """Yield a local file with the content of `path`: the file itself, or a copy that is deleted after the block.

    Raises:
        FileNotFoundError: there is no such object. For a local path nothing is checked.
    """
    source: Any = storage_path(path)
    if is_local(source):
        yield source
        return
    with temporary_folder() as folder:
        copy = folder / source.name
        source.fs.get_file(source.path, str(copy))
        yield copy


@contextmanager
def temporary_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=TEMPORARY_FOLDER_PREFIX) as folder:
        yield Path(folder)


def upload(file: Path, path: Path) -> None:
    """Put a local file under a remote name: readers see the old object or the whole new one."""
    remote: Any = path
    remote.fs.put_file(str(file), remote.path)


def read_object(path: Path) -> bytes:
    """Read a remote object by one request, so that an object that is replaced meanwhile is read whole.

    Raises:
        FileNotFoundError: there is no such object.
    """
    remote: Any = path
    return remote.fs.cat_file(remote.path)


def create_exclusively(path: Path, content: bytes) -> None:
    """Create a remote object by a conditional write. Raises FileExistsError where it exists."""
    remote: Any = path
    remote.fs.pipe_file(remote.path, content, mode="create")


def list_files(folder: Path) -> dict[str, int]:
    """Return the size in bytes of every object in a remote folder, at any depth, by name relative to the folder."""
    prefix = _split(folder)[1].strip("/")
    prefix = f"{prefix}/" if prefix else ""
    return {name.removeprefix(prefix): size for name, size in _objects(folder, prefix)}


def file_sizes(folder: Path) -> Callable[[str], int | None]:
    """Return a function from a file name in a table in `folder` to the size in bytes; None where there is no file.

    On disk each file is looked up. In an object store the folders with which the names begin (`media/`,
    `../candidates/`) are listed once each: a request per file would take hours for a large run.
    """
    listed: dict[str, dict[str, int]] = {}

    def size(name: str) -> int | None:
        top = None if is_local(folder) or is_uri(name) else _TOP_FOLDER.match(name)
        if top is None:
            return _size(resolve_in(folder, name))
        if top[0] not in listed:
            listed[top[0]] = list_files(resolve_in(folder, top[0]))
        return listed[top[0]].get(name[top.end() :])

    return size


def storage_errors() -> tuple[type[BaseException], ...]:
    """Return the exceptions raised when a store cannot be reached or refuses the credentials."""
    loaded = [(sys.modules[module], name) for module, name in _CLIENT_ERRORS if module in sys.modules]
    return (OSError, *(getattr(module, name) for module, name in loaded))


def _remote_path(uri: str, protocol: str) -> Any:
    extra = _EXTRAS.get(protocol)
    advice = f"Install it with `pip install 'avdpo[{extra}]'`." if extra else "Give s3://, gs:// or a local path."
    try:
        from upath import UPath  # late: local paths do without

        # Workers and the driver write side by side, so a kept listing is wrong as soon as it is made.
        options: dict[str, Any] = {"use_listings_cache": False} if extra else {}
        path = UPath(uri, **options).resolve()
        assert path.fs is not None  # imports what it needs
    except (ImportError, ValueError) as error:
        raise ValueError(f"{uri} needs support for {protocol}:// ({error}). {advice}") from error
    return path


@cache  # an error is not cached
def _check_bucket(root: str) -> None:
    bucket = _remote_path(root, root.partition(":")[0])
    try:
        bucket.fs.info(bucket.path)
    except FileNotFoundError as error:
        raise ValueError(
            f"{root} does not exist. Create the bucket, or correct the URI or the endpoint in the environment."
        ) from error
    except PermissionError as error:
        raise ValueError(
            f"{root} cannot be used: access is denied ({error}). Give credentials in the environment that may list, "
            "read, write and delete there."
        ) from error
    except storage_errors() as error:
        raise ValueError(
            f"{root} cannot be reached ({type(error).__name__}: {error}). Set credentials and endpoint in the "
            "environment (for S3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, and AWS_ENDPOINT_URL "
            "for a server of your own)."
        ) from error


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return None


def _objects(folder: Path, prefix: str) -> Iterator[tuple[str, int]]:
    """Yield names in the bucket and sizes; from S3 page by page, since `find` would hold a kilobyte per object."""
    remote: Any = folder
    bucket = remote.path.partition("/")[0]
    if _EXTRAS.get(remote.protocol) != "s3":
        found = remote.fs.find(remote.path, detail=True).items()
        yield from ((name.removeprefix(f"{bucket}/"), int(facts["size"])) for name, facts in found)
        return
    page: dict[str, Any] = {}
    while page.get("IsTruncated", True):
        start = {"ContinuationToken": page["NextContinuationToken"]} if page else {}
        page = remote.fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **start)
        yield from ((item["Key"], int(item["Size"])) for item in page.get("Contents", ()))


def _split(remote: Path) -> tuple[str, str]:
    """Return protocol and bucket, and the absolute path in the bucket."""
    protocol, _, rest = str(remote).partition("://")
    bucket, _, inside = rest.partition("/")
    return f"{protocol}://{bucket}", f"/{inside}"


def _joined(prefix: str, path: str) -> str:
    return os.path.normpath(os.path.join(prefix, path))
