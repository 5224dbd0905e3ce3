"""Several processes that train together, as torch's variables and accelerate's launcher would start them."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import socket
import sys
from pathlib import Path

import torch
import transformers.training_args
import yaml

RECIPES = Path(__file__).parents[1] / "recipes" / "accelerate"


def in_processes(module, argv, world_size=2, sharded=False, **environment):
    """Runs the command in forks of a process that has imported what it needs; exit codes, and what each one said."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "model.train",
            "model.train.trainer",
            "model.train.start",
            "model.train.trained_folder",
            "dpo.train.start",
            "tests.processes",
        ]
    )
    together = {"WORLD_SIZE": world_size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()} | environment
    folder = Path(argv[argv.index("--output_dir") + 1])
    notes = [folder.with_name(f"{folder.name}-{rank}.txt") for rank in range(world_size)]
    processes = []
    for rank, note in enumerate(notes):
        variables = {name: str(value) for name, value in (together | {"RANK": rank, "LOCAL_RANK": rank}).items()}
        processes.append(context.Process(target=run_rank, args=(module, argv, variables, str(note), sharded)))
        processes[-1].start()
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes], [note.read_text() for note in notes]


def run_rank(module, argv, variables, note, sharded):
    """One of them: runs the command under these environment variables; what it says goes to the file `note`."""
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType

    os.environ.update(variables)
    torch.set_num_threads(1)
    if sharded:  # accelerate shards on GPUs only, so these must look like some
        transformers.training_args.is_torch_bf16_gpu_available = lambda: True
        os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
        PartialState._prepare_backend = lambda *args, **kwargs: ("gloo", DistributedType.MULTI_GPU)
    with open(note, "w", encoding="utf-8") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        status = importlib.import_module(f"{module}.command").main(argv)
    assert not sharded or AcceleratorState().distributed_type == DistributedType.FSDP
    sys.exit(status)


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def fsdp_variables():
    """What accelerate's launcher makes of the shipped file."""
    settings = yaml.safe_load((RECIPES / "fsdp2.yaml").read_text())["fsdp_config"]
    names = {"fsdp_transformer_layer_cls_to_wrap": "fsdp_transformer_cls_to_wrap"}
    variables = {names.get(name, name).upper(): str(value) for name, value in settings.items()}
    return variables | {"ACCELERATE_USE_FSDP": "true"}
