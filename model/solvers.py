"""Solvers of the flow's differential equation from noise to data; each modality of a clip has its own solver."""

from __future__ import annotations

from typing import Any, Literal, Protocol, get_args

from torch import Tensor

from model.flow import NUM_TRAIN_TIMESTEPS, euler_step, sampling_timesteps, shift_ratio

SolverName = Literal["euler", "unipc", "dpm++"]
SOLVERS: tuple[str, ...] = get_args(SolverName)


class Solver(Protocol):
    """Interface of a solver, which steps latents down `timesteps`.

    A solver stores earlier steps, so each run and each modality needs its own object.
    """

    timesteps: list[float]  # in (0, 1000], one per evaluation of the network

    def step(self, index: int, velocity: Tensor, latents: Tensor) -> Tensor:
        """Return the latents at the next timestep, given the velocity at `timesteps[index]`."""


class EulerSolver:
    """The release's sampler: Euler steps on the shifted grid, the last one to timestep 0."""

    def __init__(self, num_steps: int, height: int, width: int, num_frames: int, shift_scale: float) -> None:
        self._grid = sampling_timesteps(num_steps, height, width, num_frames, shift_scale).tolist()
        self.timesteps = self._grid[:-1]

    def step(self, index: int, velocity: Tensor, latents: Tensor) -> Tensor:
        return euler_step(latents, velocity, self._grid[index], self._grid[index + 1])


class MultistepSolver:
    """Adapter for diffusers' second-order solvers, on diffusers' own grid for flows with the same shift."""

    def __init__(self, scheduler: Any, num_steps: int) -> None:
        scheduler.set_timesteps(num_steps)
        # Set, not looked up by timestep: diffusers' timesteps are integers, and strong shifts repeat them.
        scheduler.set_begin_index(0)
        self._scheduler = scheduler
        self._grid: Tensor = scheduler.timesteps
        self.timesteps = [sigma * NUM_TRAIN_TIMESTEPS for sigma in scheduler.sigmas[:num_steps].tolist()]

    def step(self, index: int, velocity: Tensor, latents: Tensor) -> Tensor:
        following: Tensor = self._scheduler.step(velocity, self._grid[index], latents, return_dict=False)[0]
        return following


def make_solver(name: str, num_steps: int, height: int, width: int, num_frames: int, shift_scale: float) -> Solver:
    """Return a new solver for one modality of one clip.

    Args:
        name: "euler" (published), or "unipc" or "dpm++", which reach the same quality in about half the steps.
        num_steps: number of solver steps, one evaluation of the network each.
        height, width: size of the clip in pixels.
        num_frames: number of frames of the clip.
        shift_scale: scale of the timestep shift, see `model.flow.shift_ratio`.

    Raises:
        ValueError: for another name or fewer than one step.
    """
    if num_steps < 1:
        raise ValueError(
            f"num_inference_steps is {num_steps}, but sampling needs at least 1 step: give a positive number."
        )
    if name == "euler":
        return EulerSolver(num_steps, height, width, num_frames, shift_scale)
    if name not in SOLVERS:
        raise ValueError(f"solver {name!r} is unknown: use one of {', '.join(SOLVERS)}.")
    from diffusers import (
        DPMSolverMultistepScheduler,
        UniPCMultistepScheduler,
    )  # imported late: the default solver does not need diffusers

    scheduler: Any = UniPCMultistepScheduler if name == "unipc" else DPMSolverMultistepScheduler
    shift = shift_ratio(height, width, num_frames, shift_scale)
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": shift}
    return MultistepSolver(scheduler(num_train_timesteps=NUM_TRAIN_TIMESTEPS, **flow), num_steps)
