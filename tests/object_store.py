"""A bucket on a real S3 server, for tests of object storage: `moto`, in the process of the tests."""

from __future__ import annotations

import importlib.util
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from core.storage import is_local, list_files, storage_path

NEEDED = ("moto", "s3fs", "upath")
IS_INSTALLED = all(importlib.util.find_spec(name) for name in NEEDED)


@contextmanager
def s3_environment() -> Iterator[int]:
    """Variables that name a server on a free port, which is yielded. Setting them costs nothing."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield port


@contextmanager
def s3_server(port: int) -> Iterator[None]:
    if not IS_INSTALLED:
        pytest.skip(f"needs {', '.join(NEEDED)}: pip install 'avdpo[dev]'")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    yield
    server.stop()


def new_bucket() -> Path:
    import s3fs

    name = f"bucket-{uuid.uuid4().hex}"
    s3fs.S3FileSystem(use_listings_cache=False).mkdir(name)
    return storage_path(f"s3://{name}/tests")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under a folder on disk or in a bucket, by its name relative to it."""
    if is_local(folder):
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    else:
        names = list(list_files(folder))
    return {os.fspath(name): (folder / name).read_bytes() for name in names}
