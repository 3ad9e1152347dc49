"""Explicit fixed-step ODE schemes for dz/dtau = v(z, tau) on tau in [0, 1], as functions of a velocity.

Not here: what the velocity is. A new scheme is a function and a line in `INTEGRATORS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Velocity = Callable[[Tensor, float], Tensor]
"""`(z [..., Z], tau)` -> dz/dtau `[..., Z]`."""

Scheme = Callable[[Velocity, Tensor, float, float], Tensor]
"""`(velocity, z, tau, h)` -> z at tau + h."""


def euler(velocity: Velocity, z: Tensor, tau: float, h: float) -> Tensor:
    """Explicit Euler: order 1, one evaluation."""
    return z.add(velocity(z, tau), alpha=h)


def heun(velocity: Velocity, z: Tensor, tau: float, h: float) -> Tensor:
    """Explicit trapezoid: order 2, two evaluations."""
    k1 = velocity(z, tau)
    k2 = velocity(z.add(k1, alpha=h), tau + h)
    return z.add(k1 + k2, alpha=h / 2)


def rk4(velocity: Velocity, z: Tensor, tau: float, h: float) -> Tensor:
    """The classical Runge-Kutta scheme: order 4, four evaluations."""
    k1 = velocity(z, tau)
    k2 = velocity(z.add(k1, alpha=h / 2), tau + h / 2)
    k3 = velocity(z.add(k2, alpha=h / 2), tau + h / 2)
    k4 = velocity(z.add(k3, alpha=h), tau + h)
    return z.add(k1 + 2 * (k2 + k3) + k4, alpha=h / 6)


@dataclass(frozen=True)
class Integrator:
    """One scheme with its order of convergence."""

    step: Scheme
    order: int


INTEGRATORS = {
    "euler": Integrator(euler, order=1),
    "heun": Integrator(heun, order=2),
    "rk4": Integrator(rk4, order=4),
}


def find_integrator(name: str) -> Integrator:
    """The scheme called `name`; ValueError names the ones there are."""
    try:
        return INTEGRATORS[name]
    except KeyError:
        raise ValueError(f"unknown integrator {name!r}; allowed: {', '.join(INTEGRATORS)}") from None


def integrate(name: str, velocity: Velocity, z: Tensor, substeps: int) -> Tensor:
    """z at tau = 1 from z `[..., Z]` at tau = 0 in `substeps` equal steps of the scheme `name`."""
    step = find_integrator(name).step
    h = 1.0 / substeps
    for k in range(substeps):
        z = step(velocity, z, k * h, h)
    return z


def evaluations(name: str, substeps: int) -> int:
    """Velocity evaluations of one call of `integrate`: the compute proxy of a flow."""
    count = 0

    def velocity(z: Tensor, tau: float) -> Tensor:
        nonlocal count
        count += 1
        return z

    integrate(name, velocity, torch.zeros(1), substeps)
    return count
