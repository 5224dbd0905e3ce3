"""The lock on the output folder of a preparation, which the calls of several shards share."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from contextlib import contextmanager

from jobs.lock import check_unlocked, lock_path
from jobs.stage import hold
from model.prepare.config import PrepareOptions


@contextmanager
def hold_output(config: PrepareOptions) -> Iterator[None]:
    """Keep other runs from making the same parts.

    A call without `--shard` excludes every other call. The call of a shard excludes a second call of that shard and
    calls without `--shard`; other shards work beside it, and two of them may publish the dataset at once, since they
    write the same files.

    Raises:
        ValueError: another run holds the folder or the shard.
        NoSpaceError: the disk is full.
    """
    folder = config.folder.resolve()
    if config.shard is None:
        with hold(folder):
            shards = lock_path(folder.with_name(f"{glob.escape(folder.name)}.shard-*")).name
            for path in folder.parent.glob(shards):
                check_unlocked(path.with_name(path.name.removeprefix(".").removesuffix(".lock")))
            yield
    else:
        index, count = config.shard_numbers
        with hold(folder.with_name(f"{folder.name}.shard-{index}-of-{count}")):
            check_unlocked(folder)
            yield
