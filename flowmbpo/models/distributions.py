"""The other two models of a distribution over the next latent: an MLP with a Gaussian head and an ensemble of MLPs.

Controls for the flow of `noise_flow`: the first has one mode and independent features, the second no noise of its own,
only the disagreement of its members.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from flowmbpo.models.dynamics import Dynamics, MLPDynamics, squared_error
from flowmbpo.models.layers import at_least_float32, init_truncated_normal_

LOG_STD = (-6.0, 1.0)
"""Bounds of the Gaussian's log deviation, in units of the (normalised) observation."""


class GaussianDynamics(MLPDynamics):
    """z' ~ N(z + f(z, a), diag sigma(z, a)^2) on observations; log sigma is bounded smoothly by `LOG_STD`.

    A Gaussian leaves every simplex, so a learned latent has no such model.
    """

    stochastic = True
    learns_from_prediction = False
    loss_evaluations = 1.0

    def __init__(self, *, latent_dim: int, action_dim: int, units: Sequence[int], activation: str) -> None:
        super().__init__(
            latent_dim=latent_dim,
            action_dim=action_dim,
            units=units,
            simnorm_dim=None,
            residual=True,
            activation=activation,
        )
        self.log_std_head = nn.Linear(units[-1], latent_dim)
        init_truncated_normal_(self.log_std_head, std=0.002)

    def moments(self, z: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log deviation of z', each `[..., Z]`."""
        features = self.trunk(z, action)
        low, high = LOG_STD
        log_std = low + (high - low) * torch.sigmoid(at_least_float32(self.log_std_head(features)))
        return z + at_least_float32(self.head(features)), log_std

    def sample(self, z: Tensor, action: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """See `Dynamics.sample`."""
        mean, log_std = self.moments(z, action)
        noise = torch.randn(z.shape, generator=generator, device=z.device, dtype=z.dtype)
        return mean + log_std.exp() * noise

    def loss(
        self,
        z: Tensor,
        action: Tensor,
        z_target: Tensor,
        *,
        z_next: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Negative log-likelihood per feature, without its constant; see `Dynamics.loss`."""
        mean, log_std = self.moments(z, action)
        return (0.5 * ((z_target - mean) / log_std.exp()).square() + log_std).mean(-1)


class EnsembleDynamics(Dynamics):
    """Members that differ in their initial weights; a sample is the prediction of one of them, chosen for each row."""

    stochastic = True
    learns_from_prediction = False

    def __init__(
        self,
        *,
        members: int,
        latent_dim: int,
        action_dim: int,
        units: Sequence[int],
        simnorm_dim: int | None,
        residual: bool,
        activation: str,
        standardize: int | None = None,
    ) -> None:
        super().__init__()
        self.evaluations_per_step = members
        self.loss_evaluations = float(members)
        self.members = nn.ModuleList(
            MLPDynamics(
                latent_dim=latent_dim,
                action_dim=action_dim,
                units=units,
                simnorm_dim=simnorm_dim,
                residual=residual,
                activation=activation,
                standardize=standardize,
            )
            for _ in range(members)
        )

    def predictions(self, z: Tensor, action: Tensor) -> Tensor:
        """Of every member: `[M, ..., Z]`."""
        return torch.stack([cast(MLPDynamics, member).next(z, action) for member in self.members])

    def next(self, z: Tensor, action: Tensor) -> Tensor:
        """The members' mean; see `Dynamics.next`."""
        return self.predictions(z, action).mean(0)

    def sample(self, z: Tensor, action: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """See `Dynamics.sample`."""
        shape = (1, *z.shape[:-1], 1)
        chosen = torch.randint(len(self.members), shape, generator=generator, device=z.device)
        return self.predictions(z, action).gather(0, chosen.expand(1, *z.shape)).squeeze(0)

    def loss(
        self,
        z: Tensor,
        action: Tensor,
        z_target: Tensor,
        *,
        z_next: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Squared error, the mean over members; see `Dynamics.loss`."""
        return squared_error(self.predictions(z, action), z_target.expand(len(self.members), *z_target.shape)).mean(0)
