"""An ensemble of state values, evaluated as one batched operation; the value used anywhere is the minimum."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowmbpo.models.activations import Activation, find_activation
from flowmbpo.models.layers import at_least_float32, latent_input


class EnsembleLinear(nn.Module):
    """E linear layers with stacked weights: `[E, N, in]` -> `[E, N, out]` in one batched product."""

    def __init__(self, members: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(members, in_features, out_features))
        self.bias = nn.Parameter(torch.zeros(members, 1, out_features))
        for member in self.weight.data:
            nn.init.orthogonal_(member, gain=math.sqrt(2))

    def forward(self, x: Tensor) -> Tensor:
        """`[E, N, in]` -> `[E, N, out]`."""
        if len(self.weight) == 1:  # a batched product of one is several times slower on a CPU
            return torch.addmm(self.bias.squeeze(0), x.squeeze(0), self.weight.squeeze(0)).unsqueeze(0)
        return torch.baddbmm(self.bias, x, self.weight)


class EnsembleBlock(nn.Module):
    """Linear -> activation -> LayerNorm for every member."""

    def __init__(self, members: int, in_features: int, out_features: int, activation: Activation) -> None:
        super().__init__()
        self.activation = activation
        self.linear = EnsembleLinear(members, in_features, out_features)
        self.scale = nn.Parameter(torch.ones(members, 1, out_features))
        self.shift = nn.Parameter(torch.zeros(members, 1, out_features))

    def forward(self, x: Tensor) -> Tensor:
        """`[E, N, in]` -> `[E, N, out]`."""
        h = self.activation(self.linear(x))
        if len(self.scale) == 1:
            return F.layer_norm(h, h.shape[-1:], self.scale.view(-1), self.shift.view(-1))
        return torch.addcmul(self.shift, F.layer_norm(h, h.shape[-1:]), self.scale)


class Critic(nn.Module):
    """`ensemble` independent value functions of z, each a network's output plus `offset`, which its owner sets."""

    offset: Tensor

    def __init__(
        self,
        *,
        latent_dim: int,
        units: Sequence[int],
        activation: str,
        ensemble: int,
        standardize: int | None = None,
    ) -> None:
        super().__init__()
        self.input = latent_input(standardize)
        widths = [latent_dim, *units]
        self.ensemble = ensemble
        self.trunk = nn.Sequential(
            *(EnsembleBlock(ensemble, a, b, find_activation(activation)) for a, b in itertools.pairwise(widths))
        )
        self.head = EnsembleLinear(ensemble, widths[-1], 1)
        self.register_buffer("offset", torch.zeros(()), persistent=False)

    def values(self, z: Tensor) -> Tensor:
        """Value of every member: z `[..., Z]` -> `[E, ...]`."""
        flat = self.input(z).reshape(1, -1, z.shape[-1]).expand(self.ensemble, -1, -1)
        return at_least_float32(self.head(self.trunk(flat))).view(self.ensemble, *z.shape[:-1]) + self.offset

    def min(self, z: Tensor) -> Tensor:
        """The smallest member's value: z `[..., Z]` -> `[...]`."""
        return self.values(z).amin(0)
