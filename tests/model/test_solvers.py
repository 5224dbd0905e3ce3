"""Every solver follows the flow: on a flow with a known solution, errors fall with the solver's order."""

from __future__ import annotations

import pytest
import torch

from model.flow import sampling_timesteps
from model.solvers import SOLVERS, make_solver

MEAN, STD = 1.5, 0.5  # of the data, a normal distribution
SIZE = (240, 432, 65, 1.0)


def velocity(latents: torch.Tensor, timestep: float) -> torch.Tensor:
    """Return E[noise - data | latents], which a perfect network would predict."""
    sigma = timestep / 1000
    centred = (latents - (1 - sigma) * MEAN) / ((1 - sigma) ** 2 * STD**2 + sigma**2)
    return sigma * centred - MEAN - (1 - sigma) * STD**2 * centred


def error(name: str, num_steps: int) -> float:
    noise = torch.linspace(-2, 2, 101)[None]
    solver, latents = make_solver(name, num_steps, *SIZE), noise
    for index, timestep in enumerate(solver.timesteps):
        latents = solver.step(index, velocity(latents, timestep), latents)
    return (latents - (MEAN + STD * noise)).abs().max().item()  # the flow maps noise to data linearly


@pytest.mark.parametrize("name", SOLVERS)
def test_solvers_run_on_the_shifted_grid_from_noise_to_data(name):
    timesteps = make_solver(name, 12, *SIZE).timesteps
    expected = sampling_timesteps(12, *SIZE)[:-1]
    assert len(timesteps) == 12
    assert (torch.tensor(timesteps) - expected).abs().max() < 2  # diffusers' grid ends at sigma 1/1000


def test_euler_is_of_first_order_and_the_others_beat_it_in_half_the_steps():
    assert 1.7 < error("euler", 40) / error("euler", 80) < 2.3
    for name in ("unipc", "dpm++"):
        assert error(name, 20) < 0.3 * error("euler", 40)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("size", [(240, 432, 65), (480, 864, 81)])
@pytest.mark.parametrize("scale", [1.0, 5.0])
@pytest.mark.parametrize("num_steps", [1, 50, 200])
def test_every_published_size_and_shift_can_be_sampled(name, size, scale, num_steps):
    """With strong shifts, the first timesteps round to equal integers, by which diffusers would look them up."""
    solver, latents = make_solver(name, num_steps, *size, scale), torch.linspace(-2, 2, 11)[None]
    for index, timestep in enumerate(solver.timesteps):
        latents = solver.step(index, velocity(latents, timestep), latents)
    assert latents.isfinite().all()
    if num_steps == 200:
        assert (latents - (MEAN + STD * torch.linspace(-2, 2, 11))).abs().max() < 0.25


def test_a_solver_does_not_remember_another_run():
    assert error("unipc", 10) == error("unipc", 10)


@pytest.mark.parametrize(
    ("name", "steps", "message"), [("heun", 10, "euler, unipc, dpm\\+\\+"), ("euler", 0, "at least 1")]
)
def test_wrong_requests_say_what_is_possible(name, steps, message):
    with pytest.raises(ValueError, match=message):
        make_solver(name, steps, *SIZE)
