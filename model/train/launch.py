"""Launcher of training commands on Ray Train: N processes of the same command in one process group."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.workers import ensure_ray


def run_on_ray(module: str, argv: Sequence[str], num_workers: int, output_dir: str, use_cpu: bool = False) -> None:
    """Call `module.run(argv)` in `num_workers` processes through Ray Train, on one GPU each unless `use_cpu`.

    Ray is the cluster of RAY_ADDRESS, or is started on this machine. All machines read the paths of the command line,
    which must lie on shared storage.

    Raises:
        ValueError: too few GPUs, or a mistake in the input that a worker found.
        ray.train.WorkerGroupError: a worker failed in another way; it holds the worker's traceback.
    """
    import ray
    from ray.train import RunConfig, ScalingConfig, WorkerGroupError
    from ray.train.torch import TorchConfig, TorchTrainer

    ensure_ray(shows_workers=True)
    num_gpus = int(ray.cluster_resources().get("GPU", 0))
    if not use_cpu and num_gpus < num_workers:
        raise ValueError(
            f"num_workers is {num_workers}, and Ray's cluster has {num_gpus} GPUs: give as many workers as GPUs, or "
            "train on CPUs by use_cpu true."
        )
    trainer = TorchTrainer(
        _work,
        train_loop_config={"module": module, "argv": list(argv), "folder": str(Path.cwd())},
        scaling_config=ScalingConfig(num_workers=num_workers, use_gpu=not use_cpu),
        torch_config=TorchConfig(backend="gloo" if use_cpu else "nccl"),
        run_config=RunConfig(storage_path=str(Path(output_dir).resolve() / "ray"), name="train"),
    )
    try:
        trainer.fit()
    except WorkerGroupError as error:
        for failure in error.worker_failures.values():
            if isinstance(failure, ValueError):
                raise ValueError(str(failure)) from error
        raise


def _work(settings: dict[str, Any]) -> None:
    """Run the command in one process; its rank is in the environment."""
    import os

    os.chdir(settings["folder"])
    importlib.import_module(f"{settings['module']}.command").run(settings["argv"])
