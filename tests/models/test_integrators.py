"""Convergence order, evaluation counts and gradients of every scheme in the table."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from flowmbpo.models.integrators import INTEGRATORS, evaluations, find_integrator, integrate


def pendulum(z: Tensor, tau: float) -> Tensor:
    """A non-linear, non-autonomous field."""
    return torch.stack((z[1], -z[0].sin() * 4 + math.cos(3 * tau)))


@pytest.mark.parametrize("name", INTEGRATORS)
def test_error_on_a_known_solution_falls_with_the_order_of_the_scheme(name: str) -> None:
    # dz/dtau = -2 tau z has the solution z_0 exp(-tau^2).
    z = torch.tensor([1.0, -3.0], dtype=torch.float64)
    errors = [
        (integrate(name, lambda z, tau: -2 * tau * z, z, k) - z * math.exp(-1)).abs().max().item() for k in (16, 32, 64)
    ]
    slopes = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert slopes == pytest.approx([INTEGRATORS[name].order] * 2, abs=0.15)


@pytest.mark.parametrize("name", INTEGRATORS)
def test_convergence_on_a_nonlinear_field(name: str) -> None:
    z = torch.tensor([0.5, 0.1], dtype=torch.float64)
    truth = integrate("rk4", pendulum, z, 4096)
    errors = [(integrate(name, pendulum, z, k) - truth).norm().item() for k in (64, 128)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(INTEGRATORS[name].order, abs=0.2)


@pytest.mark.parametrize("name", INTEGRATORS)
@pytest.mark.parametrize("substeps", [1, 3])
def test_evaluations_are_counted_and_stay_inside_the_unit_interval(name: str, substeps: int) -> None:
    seen: list[float] = []

    def field(z: Tensor, tau: float) -> Tensor:
        seen.append(tau)
        return -z

    integrate(name, field, torch.ones(2), substeps)
    assert len(seen) == evaluations(name, substeps)
    assert min(seen) == 0.0
    assert max(seen) <= 1.0


@pytest.mark.parametrize("name", INTEGRATORS)
def test_a_constant_velocity_is_integrated_exactly(name: str) -> None:
    z, v = torch.randn(4, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    torch.testing.assert_close(integrate(name, lambda z, tau: v, z, 5), z + v)


@pytest.mark.parametrize("name", INTEGRATORS)
def test_gradients_through_the_integrator_match_finite_differences(name: str) -> None:
    weight = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    z = torch.randn(2, dtype=torch.float64, requires_grad=True)

    def end(z: Tensor, weight: Tensor) -> Tensor:
        return integrate(name, lambda z, tau: torch.tanh(weight @ z) * (1 + tau), z, 3)

    assert torch.autograd.gradcheck(end, (z, weight))


def test_an_unknown_scheme_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'leapfrog'; allowed: euler, heun, rk4"):
        find_integrator("leapfrog")
