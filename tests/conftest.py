"""Fixtures shared by the tests of several packages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import object_store


@pytest.fixture(scope="session")
def s3_port() -> Iterator[int]:
    """Where `bucket` has its server. Ray's workers must know it when Ray starts."""
    with object_store.s3_environment() as port:
        yield port


@pytest.fixture(scope="session")
def s3_server(s3_port: int) -> Iterator[None]:
    with object_store.s3_server(s3_port):
        yield


@pytest.fixture
def bucket(s3_server: None) -> Path:
    """An empty folder in a new bucket on a real S3 server; without one installed, tests that ask for it are skipped."""
    return object_store.new_bucket()


@pytest.fixture(scope="session")
def ray_session(s3_port: int) -> Iterator[None]:
    """Ray on this machine with 2 CPUs, started once for all tests that need it. Stages find it running and use it."""
    import ray

    root = str(Path(__file__).parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))  # for the workers
    ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=128 * 2**20, log_to_driver=False)
    yield
    ray.shutdown()
