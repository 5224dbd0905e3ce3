"""Solvers of the flow's differential equation, from noise to data, one per modality of a clip."""

from __future__ import annotations

from typing import Any, Literal, Protocol, get_args

from torch import Tensor

from model.flow import NUM_TRAIN_TIMESTEPS, euler_step, sampling_timesteps, shift_ratio

SolverName = Literal["euler", "unipc", "dpm++"]
SOLVERS: tuple[str, ...] = get_args(SolverName)


class Solver(Protocol):
    """Walks latents down `timesteps`; a solver remembers its past, so each run and modality needs its own."""

    timesteps: list[float]  # in (0, 1000], one per evaluation of the network

    def step(self, index: int, velocity: Tensor, latents: Tensor) -> Tensor:
        """Latents at the next timestep, from the velocity at `timesteps[index]`."""


class EulerSolver:
    """The release's sampler: straight steps on the shifted grid, the last one to 0."""

    def __init__(self, num_steps: int, height: int, width: int, num_frames: int, shift_scale: float) -> None:
        self._grid = sampling_timesteps(num_steps, height, width, num_frames, shift_scale).tolist()
        self.timesteps = self._grid[:-1]

    def step(self, index: int, velocity: Tensor, latents: Tensor) -> Tensor:
        return euler_step(latents, velocity, self._grid[index], self._grid[index + 1])


class MultistepSolver:
    """A second-order solver of diffusers, on diffusers' own grid for flows with the same shift."""

    def __init__(self, scheduler: Any, num_steps: int) -> None:
        scheduler.set_timesteps(num_steps)
        scheduler.set_begin_index(0)  # not looked up: its timesteps are whole numbers, and strong shifts repeat them
        self._scheduler = scheduler
        self._grid: Tensor = scheduler.timesteps
        self.timesteps = [sigma * NUM_TRAIN_TIMESTEPS for sigma in scheduler.sigmas[:num_steps].tolist()]

    def step(self, index: int, velocity: Tensor, latents: Tensor) -> Tensor:
        following: Tensor = self._scheduler.step(velocity, self._grid[index], latents, return_dict=False)[0]
        return following


def make_solver(name: str, num_steps: int, height: int, width: int, num_frames: int, shift_scale: float) -> Solver:
    """A fresh solver for one modality of one clip of this size.

    Args:
        name: "euler" (published), "unipc" or "dpm++": as good in about half the steps.

    Raises:
        ValueError: for another name or fewer than one step.
    """
    if num_steps < 1:
        raise ValueError(f"num_inference_steps is {num_steps}: sampling needs at least 1 step.")
    if name == "euler":
        return EulerSolver(num_steps, height, width, num_frames, shift_scale)
    if name not in SOLVERS:
        raise ValueError(f"solver {name!r} is unknown: use one of {', '.join(SOLVERS)}.")
    from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler  # late: the default does without

    scheduler: Any = UniPCMultistepScheduler if name == "unipc" else DPMSolverMultistepScheduler
    shift = shift_ratio(height, width, num_frames, shift_scale)
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": shift}
    return MultistepSolver(scheduler(num_train_timesteps=NUM_TRAIN_TIMESTEPS, **flow), num_steps)
