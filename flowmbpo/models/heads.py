"""Scalar predictions on (z, a): reward as a number or as a two-hot distribution, and whether the episode goes on.

Each head owns its loss and its decoding, so that nobody outside ever sees a logit. Not here: scaling of rewards.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowmbpo.models.layers import NormedMLP, at_least_float32, init_truncated_normal_


def symlog(x: Tensor) -> Tensor:
    """sign(x) log(1 + |x|): a logarithm for both signs (Hafner et al., arXiv 2301.04104)."""
    return x.sign() * x.abs().log1p()


def symexp(x: Tensor) -> Tensor:
    """sign(x) (exp|x| - 1): the inverse of `symlog`."""
    return x.sign() * x.abs().expm1()


class Head(nn.Module, ABC):
    """Normed layers on [z, a] and a linear layer of `outputs` that starts at zero; subclasses give it its meaning."""

    def __init__(
        self,
        *,
        latent_dim: int,
        action_dim: int,
        units: Sequence[int],
        activation: str,
        outputs: int = 1,
        standardize: int | None = None,
    ) -> None:
        super().__init__()
        self.trunk = NormedMLP(latent_dim, units, activation, context_features=action_dim, standardize=standardize)
        self.last = nn.Linear(units[-1], outputs)
        init_truncated_normal_(self)
        nn.init.zeros_(self.last.weight)

    def forward(self, z: Tensor, action: Tensor) -> Tensor:
        """Predicted scalar: z `[..., Z]`, action `[..., A]` -> `[...]`."""
        return self.decode(self.raw(z, action))

    def loss(self, z: Tensor, action: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of each sample, and the (detached) prediction it came from; target `[...]` -> `[...]`, `[...]`."""
        raw = self.raw(z, action)
        return self.raw_loss(raw, target), self.decode(raw.detach())

    def raw(self, z: Tensor, action: Tensor) -> Tensor:
        """Output of the last layer, float32: `[..., outputs]`."""
        return at_least_float32(self.last(self.trunk(z, action)))

    @abstractmethod
    def decode(self, raw: Tensor) -> Tensor:
        """The scalar that `raw` `[..., outputs]` stands for: `[...]`."""

    @abstractmethod
    def raw_loss(self, raw: Tensor, target: Tensor) -> Tensor:
        """Loss of `raw` `[..., outputs]` against the true scalar `[...]`: `[...]`."""


class ScalarReward(Head):
    """The reward as one number, squared error."""

    def decode(self, raw: Tensor) -> Tensor:
        """See `Head.decode`."""
        return raw.squeeze(-1)

    def raw_loss(self, raw: Tensor, target: Tensor) -> Tensor:
        """See `Head.raw_loss`."""
        return (raw.squeeze(-1) - target).square()


class TwoHotReward(Head):
    """The reward as a distribution over bins in symlog space: cross-entropy, decoded as symexp of the expectation.

    The target puts its mass on the two bins around symlog(r), such that their expectation is symlog(r). The bins
    span symlog values of -10 to 10, that is rewards up to 22,025 in size; a larger one counts as the largest.
    """

    bins: Tensor

    def __init__(
        self,
        *,
        latent_dim: int,
        action_dim: int,
        units: Sequence[int],
        activation: str,
        standardize: int | None = None,
        bins: int = 101,
        limit: float = 10.0,
    ) -> None:
        super().__init__(
            latent_dim=latent_dim,
            action_dim=action_dim,
            units=units,
            activation=activation,
            outputs=bins,
            standardize=standardize,
        )
        self.register_buffer("bins", torch.linspace(-limit, limit, bins), persistent=False)

    def decode(self, raw: Tensor) -> Tensor:
        """See `Head.decode`."""
        return symexp((raw.softmax(-1) * self.bins).sum(-1))  # not a matrix product: autocast would round it

    def raw_loss(self, raw: Tensor, target: Tensor) -> Tensor:
        """See `Head.raw_loss`."""
        count, low, high = len(self.bins), self.bins[0], self.bins[-1]
        position = ((symlog(target) - low) / (high - low) * (count - 1)).clamp(0, count - 1)
        below = position.floor().clamp(max=count - 2)
        pair = below.long().unsqueeze(-1) + torch.arange(2, device=raw.device)
        logits = raw.gather(-1, pair)
        return raw.logsumexp(-1) - torch.lerp(logits[..., 0], logits[..., 1], position - below)


class Continuation(Head):
    """Probability that the episode goes on after (z, a), that is: the transition does not terminate it."""

    def decode(self, raw: Tensor) -> Tensor:
        """See `Head.decode`."""
        return raw.squeeze(-1).sigmoid()

    def raw_loss(self, raw: Tensor, target: Tensor) -> Tensor:
        """Binary cross-entropy against 1 (goes on) or 0 (terminated)."""
        return F.binary_cross_entropy_with_logits(raw.squeeze(-1), target, reduction="none")
