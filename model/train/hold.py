"""The lock on the output folder of a training, which its processes share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list

from jobs.stage import hold


@contextmanager
def hold_output(config: Any) -> Iterator[None]:
    """Hold the output folder by the first process, for all processes that train together.

    Raises:
        ValueError: in every process, since the others would wait for the first one: another run holds the folder.
        NoSpaceError: the disk is full.
    """
    refusal = [""]
    with ExitStack() as stack:
        if config.process_index == 0:
            try:
                stack.enter_context(hold(Path(str(config.output_dir)).resolve()))
            except ValueError as error:
                refusal = [str(error)]
        if config.world_size > 1:
            broadcast_object_list(refusal)
        if refusal[0]:
            raise ValueError(refusal[0])
        yield
