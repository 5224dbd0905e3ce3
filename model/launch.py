"""Training commands on Ray: N processes of the same command, one process group."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def run_on_ray(module: str, argv: Sequence[str], num_workers: int, output_dir: str) -> None:
    """Runs `python -m module argv` in `num_workers` processes through Ray Train, one GPU each where there are GPUs.

    Joins the cluster of RAY_ADDRESS, or starts Ray on this machine.  Paths are those of the command line, so on several
    machines they must lie on storage that all of them share.

    Raises:
        ValueError: a worker found a mistake in the input, or failed.
    """
    import ray
    import torch
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    if not ray.is_initialized():
        ray.init()
    use_gpu = ray.cluster_resources().get("GPU", 0) >= num_workers
    folder = str(Path.cwd())
    trainer = TorchTrainer(
        _work,
        train_loop_config={"module": module, "argv": [*argv, "--num_workers", "0"], "folder": folder},
        scaling_config=ScalingConfig(num_workers=num_workers, use_gpu=use_gpu),
        torch_config=TorchConfig(backend="nccl" if use_gpu and torch.cuda.is_available() else "gloo"),
        run_config=RunConfig(storage_path=str(Path(output_dir).resolve() / "ray"), name="train"),
    )
    trainer.fit()


def _work(settings: dict[str, Any]) -> None:
    """One process: the command itself, which finds its rank in the environment."""
    import os

    os.chdir(settings["folder"])
    status = importlib.import_module(settings["module"]).main(settings["argv"])
    if status:
        raise RuntimeError(f"{settings['module']} ended with status {status}; its message stands above.")
