"""Transfer of one file: received over as many connections as needed, checked, and then given its final name."""

from __future__ import annotations

import ast
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub.errors import HTTPError
from huggingface_hub.utils import get_session
from tqdm import tqdm

TIMEOUT_S = 30.0  # without data, not for the whole transfer
PART_SUFFIX = ".part"
WHOLE_BYTES = {"Accept-Encoding": "identity"}  # sizes and offsets are those of the uncompressed file
RETRY_DELAYS_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
LONGEST_RETRY_AFTER_S = 60  # longer requests of a server are ignored in favour of our own delays

Result = TypeVar("Result")


class UnreachableError(ConnectionError):
    """A server does not answer; the message names it."""


class BusyError(ConnectionError):
    """A server answers that it is busy; the message names it."""

    def __init__(self, answer: str, headers: Mapping[str, str]) -> None:
        super().__init__(answer)
        retry_after = headers.get("Retry-After", "")
        self.retry_after_s = int(retry_after) if retry_after.isdecimal() else 0  # it may also be a date


class MismatchError(ValueError):
    """A file differs from the expected one; the message is a predicate, 'has the sha256 A instead of B'."""


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    path: str  # in the output folder
    origin: str | Path | None  # the address or file to read; None for a file that exists already
    source: str  # the repository or address that the lock file names
    revision: str | None
    size: int
    sha256: str | None
    git_sha1: str | None = None  # the only hash that the hub has of its small files
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # may hold an access token
    constant: str | None = None  # constant with the file's text in an origin of Python source, which is never run
    python_size: int | None = None  # bytes of that source

    @property
    def transfer_size(self) -> int:
        return self.size if self.python_size is None else self.python_size

    @property
    def description(self) -> str:
        return f"{self.origin}" if self.constant is None else f"{self.constant} in {self.origin}"


def obtain(file: RemoteFile, path: Path) -> str:
    """Fetch a file to `path`, or check the existing one; return its sha256.

    Raises:
        ValueError: the file has another content than expected, or the server refuses it.
        UnreachableError: the server does not answer. Received bytes are kept, and the next call continues there.
    """
    if path.exists():
        try:
            return checked_sha256(path, file)
        except MismatchError as error:
            raise ValueError(f"{path} is already there and {error}. Remove it and run again.") from error
    assert file.origin is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_path(path)
    if isinstance(file.origin, Path):
        shutil.copyfile(file.origin, part)
    else:
        _download(file.origin, part, file)
    try:
        if file.constant is not None:
            part.write_bytes(_text_of(file.constant, part.read_bytes()))
        sha256 = checked_sha256(part, file)
    except MismatchError as error:
        part.unlink()
        raise ValueError(f"{file.description} {error}. It has been removed; run again to fetch it again.") from error
    os.replace(part, path)
    return sha256


def patiently(call: Callable[[], Result]) -> Result:
    """Repeat a call until the server is not busy, with growing pauses, or longer ones on the server's request.

    `http_backoff` of huggingface_hub is not used, since it waits for any time that a server requests.

    Raises:
        ConnectionError: the server stays busy.
    """
    for delay in RETRY_DELAYS_S:
        try:
            return call()
        except BusyError as error:
            asked = error.retry_after_s
            time.sleep(max(delay, asked) if asked <= LONGEST_RETRY_AFTER_S else delay)
    try:
        return call()
    except BusyError as error:
        attempts = len(RETRY_DELAYS_S) + 1
        raise ConnectionError(f"{error}, {attempts} times in a row; run again later to continue there") from error


def remote_size(url: str) -> int:
    """Return the size in bytes that a server states for the file at an address.

    Raises:
        ValueError: the server refuses the address, or states no size.
        BusyError: the server is busy, so that a retry may help.
        UnreachableError: the server does not answer.
    """
    try:
        answer = get_session().head(url, headers=WHOLE_BYTES, timeout=TIMEOUT_S)
    except HTTPError as error:
        raise UnreachableError(f"{url} could not be reached ({error})") from error
    _refuse_error(url, answer)
    if not (size := answer.headers.get("Content-Length", "")).isdecimal():
        raise ValueError(f"{url} does not say how large it is. Fetch it by other means, and give --hub its folder.")
    return int(size)


def is_busy(status: int) -> bool:
    """Return whether a retry may help after an answer with this status."""
    return status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR


def part_path(path: Path) -> Path:
    """Return the path of an unfinished file. The name is fixed, so that a later run finds it."""
    return path.with_name(path.name + PART_SUFFIX)


def received_bytes(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def checked_sha256(path: Path, file: RemoteFile) -> str:
    """Return the sha256 of the file at `path`.

    Raises:
        MismatchError: its size or a known hash differs.
    """
    size = path.stat().st_size
    if size != file.size:
        raise MismatchError(f"has {size} bytes instead of {file.size}")
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    if file.sha256 not in (None, sha256):
        raise MismatchError(f"has the sha256 {sha256} instead of {file.sha256}")
    if file.git_sha1 is not None and file.git_sha1 != (git_sha1 := _git_sha1(path, size)):
        raise MismatchError(f"has the git sha1 {git_sha1} instead of {file.git_sha1}")
    return sha256


def _git_sha1(path: Path, size: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.sha1(b"blob %d\0" % size)).hexdigest()


def _text_of(constant: str, python: bytes) -> bytes:
    """Return the text that Python source assigns to a constant, in UTF-8. The source is parsed, and never run."""
    try:
        for statement in ast.parse(python).body:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(text))) if name == constant:
                    return text.encode("utf-8")
    except (SyntaxError, ValueError) as error:
        raise MismatchError(f"cannot be read ({error})") from error
    raise MismatchError("is no text")


def _download(url: str, part: Path, file: RemoteFile) -> None:
    """Receive the missing rest of `part`, over new connections as long as each one receives data.

    `hf_hub_download` is not used: since huggingface_hub's PR 4228 the next process restarts an interrupted file.
    """
    while (received := received_bytes(part)) < file.transfer_size or not part.exists():
        try:
            patiently(lambda: _append(url, part, file))
            return
        except HTTPError as error:
            if received_bytes(part) <= received:
                raise UnreachableError(f"{url} could not be reached ({error})") from error


def _append(url: str, part: Path, file: RemoteFile) -> None:
    headers = {**file.headers, **WHOLE_BYTES}
    if offset := received_bytes(part):
        headers["Range"] = f"bytes={offset}-"
    with get_session().stream("GET", url, headers=headers, timeout=TIMEOUT_S) as response:
        _refuse_error(url, response)
        if response.status_code != HTTPStatus.PARTIAL_CONTENT:
            offset = 0  # a server may ignore Range and send the whole file
        with part.open("ab" if offset else "wb") as stream, _progress(file, offset) as bar:
            for chunk in response.iter_bytes():
                stream.write(chunk)
                bar.update(len(chunk))


def _refuse_error(url: str, response: Any) -> None:
    """Raise for an answer without the file. The class of `response` depends on huggingface_hub's version."""
    answer = f"{url} answered {response.status_code} {response.reason_phrase}"
    if is_busy(response.status_code):
        raise BusyError(answer, response.headers)
    if response.is_error:
        raise ValueError(f"{answer}. Run again once it serves.")


def _progress(file: RemoteFile, offset: int) -> tqdm:
    seconds = 0.2 if sys.stderr.isatty() else 10.0
    return tqdm(
        total=file.transfer_size,
        initial=offset,
        desc=file.path,
        unit="B",
        unit_scale=True,
        leave=False,
        mininterval=seconds,
        file=sys.stderr,
    )
