"""Flow dynamics: z' by integrating a learned velocity field from tau = 0 (now) to tau = 1 (one control step later).

Flow matching after Liu et al. (arXiv 2209.03003) and Lipman et al. (2210.02747), with the model's own latent as the
source and the encoding of the next observation as the target. Not here: the schemes (`integrators`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flowmbpo.models.dynamics import RESIDUAL_STD, Dynamics, move_on_simplex, squared_error
from flowmbpo.models.integrators import evaluations, integrate
from flowmbpo.models.layers import (
    NormedLinear,
    NormedMLP,
    SimNorm,
    at_least_float32,
    check_groups,
    init_truncated_normal_,
)

TAU_SAMPLING = ("uniform", "midpoint", "early")

OBJECTIVES = {"matching": (True, False), "prediction": (False, True), "both": (True, True)}
"""Which losses a flow learns from: that of its velocity on the straight path, that of the integrated end point."""


def sample_tau(how: str, action: Tensor, generator: torch.Generator | None) -> Tensor:
    """One tau per sample of action `[..., A]` -> `[..., 1]`.

    `uniform` on [0, 1); `midpoint` 1/2; `early` 0 for seven of eight, where a single evaluation asks, else uniform.
    """
    shape = (*action.shape[:-1], 1)
    if how == "midpoint":
        return action.new_full(shape, 0.5)
    tau = torch.rand(shape, generator=generator, device=action.device, dtype=action.dtype)
    return tau if how == "uniform" else (8 * tau - 7).clamp_min(0)


class VelocityField(nn.Module):
    """Network on [z_tau, a, condition] that gives dz/dtau, in one of two parametrisations; the condition is tau.

    `linear`: the last layer is the velocity itself, free to have any sign and size. (A SimNorm there could not
    represent a target that sums to zero in each group.)

    `endpoint`: the last layer predicts the end point x1 on the simplex, through SimNorm, or with `residual` as
    SimNorm(log z_tau + last layer), whose untrained velocity is zero. On the straight path from
    z_0 to x1, (x1 - z_tau) / (1 - tau) equals x1 - z_0 for every tau; the right-hand side is used because it has no
    singularity at tau = 1. Every explicit scheme whose weights are non-negative (Euler, Heun, RK4) then makes each
    stage and each step a convex combination of z_0 and predicted end points, so z cannot leave the simplex,
    whatever the number of substeps.
    """

    def __init__(
        self,
        *,
        latent_dim: int,
        action_dim: int,
        units: Sequence[int],
        simnorm_dim: int | None,
        activation: str,
        parametrisation: str,
        residual: bool,
        conditions: int,
        standardize: int | None,
    ) -> None:
        super().__init__()
        check_groups(latent_dim, simnorm_dim)
        self.trunk = NormedMLP(
            latent_dim, units, activation, context_features=action_dim + conditions, standardize=standardize
        )
        self.endpoint = parametrisation == "endpoint"
        self.simnorm_dim, self.residual = simnorm_dim, residual
        self.head: nn.Module
        if self.endpoint:
            if simnorm_dim is None:
                raise ValueError(
                    "velocity 'endpoint' needs a SimNorm latent; for an observation latent choose 'linear'"
                )
            if residual:
                self.head = nn.Linear(units[-1], latent_dim)
            else:
                self.head = NormedLinear(units[-1], latent_dim, SimNorm(simnorm_dim))
        elif parametrisation == "linear":
            # No LayerNorm: it would fix the length of the velocity, which tells a slow step from a fast one.
            self.head = nn.Linear(units[-1], latent_dim)
        else:
            raise ValueError(f"unknown velocity {parametrisation!r}; allowed: linear, endpoint")
        init_truncated_normal_(self)
        if self.endpoint and residual:
            init_truncated_normal_(self.head, std=RESIDUAL_STD)

    def forward(self, z: Tensor, action: Tensor, condition: Tensor, z_start: Tensor) -> Tensor:
        """z at tau and z at 0 `[..., Z]`, action `[..., A]`, condition `[..., C]` -> dz/dtau `[..., Z]`."""
        out = at_least_float32(self.head(self.trunk(z, torch.cat((action, condition), -1))))
        if not self.endpoint:
            return out
        if self.residual:
            assert self.simnorm_dim is not None
            out = move_on_simplex(z, out, self.simnorm_dim)
        return out - z_start


class FlowDynamics(Dynamics):
    """z' = z + integral of v(z_tau, a, tau) over tau in [0, 1], by `substeps` steps of `integrator`."""

    conditions = 1
    """Scalars that the velocity network sees beside z and a."""

    def __init__(
        self,
        *,
        latent_dim: int,
        action_dim: int,
        units: Sequence[int],
        simnorm_dim: int | None,
        activation: str,
        integrator: str,
        substeps: int,
        tau_sampling: str,
        velocity: str,
        residual: bool,
        objective: str,
        standardize: int | None = None,
    ) -> None:
        super().__init__()
        if objective not in OBJECTIVES:
            raise ValueError(f"unknown objective {objective!r}; allowed: {', '.join(OBJECTIVES)}")
        self.matches, self.learns_from_prediction = OBJECTIVES[objective]
        self.loss_evaluations = float(self.matches)
        if tau_sampling not in TAU_SAMPLING:
            raise ValueError(f"unknown tau_sampling {tau_sampling!r}; allowed: {', '.join(TAU_SAMPLING)}")
        self.tau_sampling = tau_sampling
        self.set_scheme(integrator, substeps)
        self.velocity = VelocityField(
            latent_dim=latent_dim,
            action_dim=action_dim,
            units=units,
            simnorm_dim=simnorm_dim,
            activation=activation,
            parametrisation=velocity,
            residual=residual,
            conditions=self.conditions,
            standardize=standardize,
        )

    def set_scheme(self, integrator: str, substeps: int) -> None:
        """See `Dynamics.set_scheme`."""
        self.evaluations_per_step = evaluations(integrator, substeps)
        self.integrator, self.substeps = integrator, substeps

    def next(self, z: Tensor, action: Tensor) -> Tensor:
        """See `Dynamics.next`."""

        def field(z_tau: Tensor, tau: float) -> Tensor:
            at = action.new_full((*action.shape[:-1], 1), tau)
            return self.velocity(z_tau, action, self.condition(at, at.new_full((), 1 / self.substeps)), z)

        return integrate(self.integrator, field, z, self.substeps)

    def loss(
        self,
        z: Tensor,
        action: Tensor,
        z_target: Tensor,
        *,
        z_next: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Matching loss ||v(z_tau, a, tau) - (z_target - z)||^2 at one tau per sample, squared error of the
        integrated prediction, or their sum; see `Dynamics.loss`.

        z_tau lies on the straight line from z to z_target.
        """
        losses = []
        if self.matches:
            tau = sample_tau(self.tau_sampling, action, generator)
            velocity = self.velocity(torch.lerp(z, z_target, tau), action, tau, z)
            losses.append(squared_error(velocity, z_target - z))
        if self.learns_from_prediction:
            losses.append(squared_error(self.next(z, action) if z_next is None else z_next, z_target))
        return losses[0] if len(losses) == 1 else losses[0] + losses[1]

    def condition(self, tau: Tensor, step: Tensor) -> Tensor:
        """What the network is told: tau `[..., 1]`, and nothing of the step's length (broadcast to tau)."""
        return tau
