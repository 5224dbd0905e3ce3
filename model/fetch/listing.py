"""Listing of a source's files, with the place of each: the hub, the web, or a local mirror."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HTTPError
from huggingface_hub.hf_api import ModelInfo, RepoSibling
from huggingface_hub.utils import build_hf_headers

from model.fetch.catalogue import HubRepo, PythonText, Source, WebFile
from model.fetch.transfer import (
    PART_SUFFIX,
    TIMEOUT_S,
    BusyError,
    RemoteFile,
    UnreachableError,
    is_busy,
    patiently,
    remote_size,
)


def list_files(source: Source, mirror: str | Path | None, revision: str | None) -> list[RemoteFile]:
    """Return the files of a source at a revision (None: the newest).

    Args:
        mirror: a hub's address, a local folder, or None for the hub that HF_ENDPOINT names. Files that are not on a
            hub come from their own server unless the mirror is a folder.

    Raises:
        ValueError: the mirror lacks the source, the revision or one of the files.
        UnreachableError: the hub does not answer.
    """
    if isinstance(source, WebFile):
        return [_web_file(source, mirror if isinstance(mirror, Path) else None)]
    return _in_folder(source, mirror, revision) if isinstance(mirror, Path) else _on_hub(source, mirror, revision)


def _on_hub(repo: HubRepo, endpoint: str | None, revision: str | None) -> list[RemoteFile]:
    api = HfApi(endpoint=endpoint)
    info = patiently(lambda: _model_info(api, repo, revision))
    listed = {sibling.rfilename: sibling for sibling in info.siblings or []}
    return [_hub_file(repo, listed[name], info.sha, api.endpoint) for name in _included(repo, listed, api.endpoint)]


def _model_info(api: HfApi, repo: HubRepo, revision: str | None) -> ModelInfo:
    try:
        return api.model_info(repo.name, revision=revision, files_metadata=True, timeout=TIMEOUT_S)
    except HfHubHTTPError as error:
        status = error.response.status_code
        answer = f"{api.endpoint} answered {status} for {repo.name} at {revision or 'its newest revision'}"
        if is_busy(status):
            raise BusyError(answer, error.response.headers) from error
        raise ValueError(f"{answer}. Check --hub, and HF_TOKEN where access is restricted.") from error
    except HTTPError as error:
        raise UnreachableError(f"{api.endpoint} could not be reached ({error})") from error


def _hub_file(repo: HubRepo, sibling: RepoSibling, revision: str | None, endpoint: str) -> RemoteFile:
    name = sibling.rfilename
    if sibling.size is None:
        raise ValueError(f"{endpoint} does not say how large {name} of {repo.name} is, as a hub would. Check --hub.")
    return RemoteFile(
        path=f"{repo.folder}/{name}",
        origin=hf_hub_url(repo.name, name, revision=revision, endpoint=endpoint),
        source=repo.name,
        revision=revision,
        size=sibling.size,
        sha256=repo.sha256.get(name) or (sibling.lfs.sha256 if sibling.lfs else None),
        git_sha1=None if sibling.lfs else sibling.blob_id,
        headers=build_hf_headers(),
    )


def _in_folder(repo: HubRepo, mirror: Path, revision: str | None) -> list[RemoteFile]:
    folder, revision = _mirrored(repo, mirror, revision)
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != PART_SUFFIX]
    present = [path.relative_to(folder).as_posix() for path in files]
    return [
        RemoteFile(
            path=f"{repo.folder}/{name}",
            origin=folder / name,
            source=repo.name,
            revision=revision,
            size=(folder / name).stat().st_size,
            sha256=repo.sha256.get(name),
        )
        for name in _included(repo, present, str(folder))
    ]


def _mirrored(repo: HubRepo, mirror: Path, revision: str | None) -> tuple[Path, str | None]:
    """Return the folder of a repository in a local mirror, and its revision where the mirror records it."""
    for folder in (mirror / repo.name, mirror / repo.folder):
        if folder.is_dir():
            return folder, None
    cache = mirror / f"models--{repo.name.replace('/', '--')}"
    main = cache / "refs" / "main"
    if revision is None and main.is_file():
        revision = main.read_text(encoding="utf-8").strip()
    if revision is not None and (folder := cache / "snapshots" / revision).is_dir():
        return folder, revision
    raise ValueError(
        f"{mirror} has no {repo.name}: looked for {repo.name}/, {repo.folder}/ and {cache.name}/snapshots/"
        f"{revision or '(the revision that refs/main names)'}/. Copy the repository to one of these."
    )


def _included(repo: HubRepo, names: Iterable[str], where: str) -> list[str]:
    names = sorted(names)
    for pattern in repo.include:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"{where} has no {pattern!r} of {repo.name}. Is the mirror complete?")
    included = [name for name in names if any(fnmatchcase(name, pattern) for pattern in repo.include)]
    for name in included:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ValueError(f"{where} lists {name!r}, which would be written outside the output folder.")
    return included


def _web_file(source: WebFile, mirror: Path | None) -> RemoteFile:
    [path] = source.destinations
    origin = source.name if mirror is None else _in_mirror(source, mirror)
    size = _size(origin) if source.size is None else source.size
    file = RemoteFile(path=path, origin=origin, source=source.name, revision=None, size=size, sha256=source.sha256)
    if isinstance(source, PythonText) and PurePosixPath(origin).name == source.file_name:
        return replace(file, constant=source.constant, python_size=source.python_size)
    return file


def _size(origin: str | Path) -> int:
    return origin.stat().st_size if isinstance(origin, Path) else patiently(lambda: remote_size(origin))


def _in_mirror(source: WebFile, mirror: Path) -> Path:
    places = dict.fromkeys((*source.destinations, source.file_name))  # of a text: itself, or its Python file
    for place in places:
        if (mirror / place).is_file():
            return mirror / place
    raise ValueError(f"{mirror} has no {' and no '.join(places)}. Copy {source.name} there.")
