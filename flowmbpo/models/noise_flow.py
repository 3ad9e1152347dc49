"""A flow that is a distribution: samples of p(z' | z, a), integrated from Gaussian noise.

With the present latent as the only source (`flow`) a flow's best velocity is the conditional mean, which is what an MLP
regresses. Here the source is noise around the present latent and z itself a condition, so that different noise may end
in different futures. Flow matching after Lipman et al. (arXiv 2210.02747) with the end point as the network's output;
one long step in place of many after Frans et al. (2410.12557). Not here: the schemes (`integrators`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from flowmbpo.models.dynamics import Dynamics, MLPDynamics, squared_error
from flowmbpo.models.flow import sample_tau
from flowmbpo.models.integrators import evaluations, find_integrator
from flowmbpo.models.shortcut import CONSISTENCY_SHARE, check_shortcut, sample_steps

SPREAD_DECAY = 0.99
"""Per update, of the running deviation of one step's change."""


class NoiseFlowDynamics(Dynamics):
    """z' is the end of dx/dtau = (x1(x, z, a, tau) - x) / (1 - tau) from x = z + spread * noise at tau = 0.

    The network x1 is an `MLPDynamics` that sees beside z and a how far x is from z, and tau: on a simplex it stays
    there, where the latent is an observation it adds a change. `spread` `[Z]` is the running deviation of the change of
    each feature in one step, so that the noise is as large as what it has to become.

    A step of a scheme from tau moves x by h / (1 - tau) towards a mean of predicted end points. It has no singularity
    at tau = 1, and the last one ends on predicted end points exactly.

    With `shortcut` the network is also told the length of the step, and a step of h is trained to lead where two of
    h / 2 do: one evaluation then draws a sample. Without, one evaluation gives the mean, whatever the noise.
    """

    stochastic = True
    learns_from_prediction = False
    spread: Tensor

    def __init__(
        self,
        *,
        latent_dim: int,
        action_dim: int,
        units: Sequence[int],
        simnorm_dim: int | None,
        residual: bool,
        activation: str,
        integrator: str,
        substeps: int,
        tau_sampling: str,
        shortcut: bool,
        standardize: int | None = None,
    ) -> None:
        super().__init__()
        self.shortcut, self.tau_sampling = shortcut, tau_sampling
        self.loss_evaluations = 1.0 + 3.0 / CONSISTENCY_SHARE * shortcut
        self.set_scheme(integrator, substeps)
        self.end_point = MLPDynamics(
            latent_dim=latent_dim,
            action_dim=latent_dim + action_dim + 1 + shortcut,
            units=units,
            simnorm_dim=simnorm_dim,
            residual=residual,
            activation=activation,
            standardize=standardize,
        )
        self.register_buffer("spread", torch.ones(latent_dim))

    def set_scheme(self, integrator: str, substeps: int) -> None:
        """See `Dynamics.set_scheme`."""
        if self.shortcut:
            check_shortcut(integrator, substeps)
        self.evaluations_per_step = evaluations(integrator, substeps)
        self.integrator, self.substeps = integrator, substeps

    def next(self, z: Tensor, action: Tensor) -> Tensor:
        """The path of no noise, the middle of the source: with one Euler step (no shortcut) the mean of p(z' | z, a).

        See `Dynamics.next`.
        """
        return self._integrate(z, action, z)

    def sample(self, z: Tensor, action: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """See `Dynamics.sample`."""
        return self._integrate(z, action, z + self.spread * self._noise(z, generator))

    def _integrate(self, z: Tensor, action: Tensor, x: Tensor) -> Tensor:
        step, h = find_integrator(self.integrator).step, 1 / self.substeps
        length = action.new_full((*action.shape[:-1], 1), h)
        for k in range(self.substeps):
            start, left = x, 1 - k * h

            def velocity(x: Tensor, tau: float, start: Tensor = start, left: float = left) -> Tensor:
                return (self._predict(x, z, action, torch.full_like(length, tau), length) - start) / left

            x = step(velocity, x, k * h, h)
        return x

    def loss(
        self,
        z: Tensor,
        action: Tensor,
        z_target: Tensor,
        *,
        z_next: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Squared error of the end point, predicted from a point on the straight way from noise to `z_target`.

        See `Dynamics.loss`. Also moves `spread`, which is no trained parameter.
        """
        with torch.no_grad():
            change = (z_target - z).square().flatten(0, -2).mean(0).sqrt().clamp_min(1e-4)
            self.spread.lerp_(torch.where(change.isfinite(), change, self.spread), 1 - SPREAD_DECAY)
        tau = sample_tau(self.tau_sampling, action, generator)
        source = z + self.spread * self._noise(z, generator)
        x = torch.lerp(source, z_target, tau)
        matching = squared_error(self._predict(x, z, action, tau, torch.zeros_like(tau)), z_target)
        if not self.shortcut:
            return matching
        share = -(-z.shape[-2] // CONSISTENCY_SHARE)
        first = (z[..., :share, :].detach(), action[..., :share, :])
        consistency = self._consistency(*first, source[..., :share, :], z_target[..., :share, :], generator)
        paid = matching[..., :share] + consistency * (z.shape[-2] / share)
        return torch.cat((paid, matching[..., share:]), -1)

    def _consistency(
        self, z: Tensor, action: Tensor, source: Tensor, z_target: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """Squared distance between the end points of a step of h and of two (stop-gradient) steps of h / 2: `[...]`."""
        tau, step, half_known = sample_steps(action, generator)
        half = step / 2
        with torch.no_grad():
            x = torch.lerp(source, z_target, tau)
            first = (self._predict(x, z, action, tau, half_known) - x) / (1 - tau)
            middle = x + half * first
            second = (self._predict(middle, z, action, tau + half, half_known) - middle) / (1 - tau - half)
            end = x + (1 - tau) * (first + second) / 2
        return squared_error(self._predict(x, z, action, tau, step), end)

    def _predict(self, x: Tensor, z: Tensor, action: Tensor, tau: Tensor, step: Tensor) -> Tensor:
        """End point `[..., Z]` of a point x on the way `[..., Z]`, at tau `[..., 1]`, for a step of that length."""
        # The deviation of x - z where the change is as large as the noise: the network sees numbers of size 1.
        size = self.spread * (tau.square() + (1 - tau).square()).sqrt()
        seen = [(x - z) / size, action, tau, step] if self.shortcut else [(x - z) / size, action, tau]
        return self.end_point.next(z, torch.cat(seen, -1))

    @staticmethod
    def _noise(z: Tensor, generator: torch.Generator | None) -> Tensor:
        return torch.randn(z.shape, generator=generator, device=z.device, dtype=z.dtype)
