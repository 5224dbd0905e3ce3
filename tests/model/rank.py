"""One process of several that train together; in a module of its own, which a process server can import."""

import contextlib
import os
import sys

import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

from model.train import main


def run_rank(argv, variables, note, sharded):
    """Runs `model.train` under these environment variables; what it says goes to the file `note`."""
    os.environ.update(variables)
    torch.set_num_threads(1)
    if sharded:  # accelerate shards on GPUs only, so these must look like some
        os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
        PartialState._prepare_backend = lambda *args, **kwargs: ("gloo", DistributedType.MULTI_GPU)
    with open(note, "w", encoding="utf-8") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        status = main(argv)
    assert not sharded or AcceleratorState().distributed_type == DistributedType.FSDP
    sys.exit(status)
