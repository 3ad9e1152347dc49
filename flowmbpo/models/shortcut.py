"""A few-step flow: a velocity that knows how long a step it is asked for, so that one long step can replace many.

Shortcut models after Frans et al. (arXiv 2410.12557), in the end-point parametrisation of `flow`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from flowmbpo.models.dynamics import squared_error
from flowmbpo.models.flow import FlowDynamics, sample_tau

SUBSTEPS = (1, 2, 4)
"""Numbers of steps per control step whose lengths the consistency loss trains."""

CONSISTENCY_SHARE = 4
"""One sample in this many also pays the consistency loss, which needs three evaluations (the paper's share)."""


def check_shortcut(integrator: str, substeps: int) -> None:
    """Raise ValueError for steps whose length a shortcut was not trained for."""
    if integrator != "euler" or substeps not in SUBSTEPS:
        raise ValueError(
            f"a shortcut flow takes 1, 2 or 4 steps of 'euler' per control step, not {substeps} of {integrator!r}"
        )


def sample_steps(action: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
    """tau, a length h and the length that the network is told for h / 2, for action `[..., A]`: `[..., 1]` each.

    h is 1, 1/2 or 1/4 with equal chance, tau one of its multiples below 1. Below the shortest length trained the
    network is told 0: the instantaneous velocity.
    """
    draw = torch.rand((2, *action.shape[:-1], 1), generator=generator, device=action.device, dtype=action.dtype)
    step = 0.5 ** (3 * draw[0]).floor()
    tau = (draw[1] / step).floor() * step
    return tau, step, torch.where(step * max(SUBSTEPS) > 1, step / 2, 0.0)


class ShortcutDynamics(FlowDynamics):
    """Euler steps of length h along v(z, a, tau, h), where a step of h is trained to equal two of h / 2.

    Lengths: 0 (the instantaneous velocity, trained by flow matching), 1/4, 1/2 and 1.
    """

    conditions = 2

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
        residual: bool,
        standardize: int | None = None,
    ) -> None:
        super().__init__(
            latent_dim=latent_dim,
            action_dim=action_dim,
            units=units,
            simnorm_dim=simnorm_dim,
            activation=activation,
            integrator=integrator,
            substeps=substeps,
            tau_sampling=tau_sampling,
            velocity="endpoint",
            residual=residual,
            objective="matching",
            standardize=standardize,
        )
        self.loss_evaluations += 3.0 / CONSISTENCY_SHARE

    def set_scheme(self, integrator: str, substeps: int) -> None:
        """See `Dynamics.set_scheme`."""
        check_shortcut(integrator, substeps)
        super().set_scheme(integrator, substeps)

    def condition(self, tau: Tensor, step: Tensor) -> Tensor:
        """tau and the length of the step `[..., 2]`."""
        return torch.cat((tau, step.expand_as(tau)), -1)

    def loss(
        self,
        z: Tensor,
        action: Tensor,
        z_target: Tensor,
        *,
        z_next: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Matching loss at step length 0, and on a share of the batch the consistency loss; see `Dynamics.loss`.

        The share is the first samples of the last batch dimension, weighted up so that the mean is unbiased.
        """
        tau = sample_tau(self.tau_sampling, action, generator)
        velocity = self.velocity(torch.lerp(z, z_target, tau), action, self.condition(tau, tau.new_zeros(())), z)
        matching = squared_error(velocity, z_target - z)

        batch = z.shape[-2]
        share = -(-batch // CONSISTENCY_SHARE)
        # Detached: two steps and one differ in how they depend on z, which is no reason to move z.
        consistency = self.consistency(
            z[..., :share, :].detach(), action[..., :share, :], z_target[..., :share, :], generator
        )
        paid = matching[..., :share] + consistency * (batch / share)
        return torch.cat((paid, matching[..., share:]), -1)

    def consistency(self, z: Tensor, action: Tensor, z_target: Tensor, generator: torch.Generator | None) -> Tensor:
        """Squared difference between a step of h and two (stop-gradient) steps of h / 2: `[...]`."""
        tau, step, half_known = sample_steps(action, generator)
        half = step / 2
        z_tau = torch.lerp(z, z_target, tau)
        with torch.no_grad():
            first = self.velocity(z_tau, action, self.condition(tau, half_known), z)
            second = self.velocity(z_tau + half * first, action, self.condition(tau + half, half_known), z)
        whole = self.velocity(z_tau, action, self.condition(tau, step), z)
        return squared_error(whole, (first + second) / 2)
