"""Latent dynamics: what every model of z' = d(z, a) offers, and the MLP; the flow lives in `flow`.

Not here: rollouts over time (`world_model`) and anything about rewards. Whoever calls these verbs never asks which
kind of dynamics it holds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowmbpo.models.activations import group_softmax
from flowmbpo.models.layers import (
    NormedLinear,
    NormedMLP,
    SimNorm,
    at_least_float32,
    check_groups,
    init_truncated_normal_,
)

RESIDUAL_STD = 0.002
"""Of the last layer's initial weights where it predicts a change: an untrained step is nearly the identity."""


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean over features of the squared difference: `[..., Z]`, `[..., Z]` -> `[...]`."""
    # Not `mean`: its gradient is a tensor of the input's size, that of `sum` a view.
    return F.mse_loss(prediction, target, reduction="none").sum(-1) / target.shape[-1]


FLOOR = 1e-8
"""Of a probability whose logarithm is taken: below it, a feature could never come back."""


def move_on_simplex(z: Tensor, change: Tensor, simnorm_dim: int) -> Tensor:
    """SimNorm(log z + change): z `[..., Z]` with its features multiplied by exp(change), on the simplices again."""
    return group_softmax(z.clamp_min(FLOOR).log() + change, simnorm_dim)


class Dynamics(nn.Module, ABC):
    """One control step in latent space: `next`, `sample` and `loss`, on any leading batch shape."""

    stochastic = False
    """Whether the model is a distribution over the next latent, of which `sample` draws."""

    evaluations_per_step: int
    """Network evaluations of one call of `next`."""

    loss_evaluations: float
    """Further network evaluations per sample of one call of `loss` that is given `z_next`."""

    learns_from_prediction: bool
    """Whether `loss` uses `z_next`."""

    @abstractmethod
    def next(self, z: Tensor, action: Tensor) -> Tensor:
        """The best single guess of the latent after one control step: z `[..., Z]`, action `[..., A]` -> `[..., Z]`.

        Differentiable, and without random numbers.
        """

    def sample(self, z: Tensor, action: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One draw from the distribution of the next latent, differentiable through z and action like `next`.

        `next` itself where the model is no distribution; it then draws no random number.
        """
        return self.next(z, action)

    def set_scheme(self, integrator: str, substeps: int) -> None:
        """Integrate by another scheme from now on; ValueError where nothing is integrated, or not so."""
        raise ValueError("this model's step is not integrated: it has no substeps")

    @abstractmethod
    def loss(
        self,
        z: Tensor,
        action: Tensor,
        z_target: Tensor,
        *,
        z_next: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Training loss of each sample, the mean over features: z, z_target `[..., Z]`, action `[..., A]` -> `[...]`.

        `z_next` is `next(z, action)` where the caller has it already; a model whose loss needs the prediction then
        does not compute it twice, any other ignores it. `generator` feeds whatever the loss samples.
        """


class MLPDynamics(Dynamics):
    """z' = SimNorm(LayerNorm(Linear(normed layers on [z, a]))), as in TD-MPC2 (arXiv 2310.16828).

    Where the latent is no simplex (`simnorm_dim` None: the normalised observation itself) the last layer is a plain
    Linear. With `residual` it is a plain Linear too and means the change, z' = z + f(z, a), or on simplices
    z' = SimNorm(log z + f(z, a)); it starts ten times smaller: an untrained model then says that little changes, which
    is nearly true of one control step. `standardize`: see `layers.latent_input`.
    """

    evaluations_per_step = 1
    loss_evaluations = 0.0
    learns_from_prediction = True

    def __init__(
        self,
        *,
        latent_dim: int,
        action_dim: int,
        units: Sequence[int],
        simnorm_dim: int | None,
        residual: bool,
        activation: str,
        standardize: int | None = None,
    ) -> None:
        super().__init__()
        check_groups(latent_dim, simnorm_dim)
        self.simnorm_dim, self.residual = simnorm_dim, residual
        self.trunk = NormedMLP(latent_dim, units, activation, context_features=action_dim, standardize=standardize)
        self.head: nn.Module
        if simnorm_dim is None or residual:
            self.head = nn.Linear(units[-1], latent_dim)
        else:
            self.head = NormedLinear(units[-1], latent_dim, SimNorm(simnorm_dim))
        init_truncated_normal_(self)
        if residual:
            init_truncated_normal_(self.head, std=RESIDUAL_STD)

    def next(self, z: Tensor, action: Tensor) -> Tensor:
        """See `Dynamics.next`."""
        out = at_least_float32(self.head(self.trunk(z, action)))
        if not self.residual:
            return out
        return z + out if self.simnorm_dim is None else move_on_simplex(z, out, self.simnorm_dim)

    def loss(
        self,
        z: Tensor,
        action: Tensor,
        z_target: Tensor,
        *,
        z_next: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Squared error of the prediction; see `Dynamics.loss`."""
        prediction = self.next(z, action) if z_next is None else z_next
        return squared_error(prediction, z_target)
