"""An ensemble of state values, evaluated as one batched operation; the value used anywhere is the minimum."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowmbpo.models.activations import Activation, find_activation
from flowmbpo.models.chain import chain, run, under_autocast, worth_it
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

    def weights(self) -> list[nn.Parameter]:
        """See `chain.chain`."""
        return [self.linear.weight, self.linear.bias, self.scale, self.shift]

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
        self._activation = find_activation(activation)
        blocks = [EnsembleBlock(ensemble, a, b, self._activation) for a, b in itertools.pairwise(widths)]
        self.trunk = nn.Sequential(*blocks)
        self.head = EnsembleLinear(ensemble, widths[-1], 1)
        self._weights = [weight for block in blocks for weight in block.weights()]  # as `chain` takes them
        self._weights += self.head.parameters()
        self._order = [next(k for k, w in enumerate(self._weights) if w is p) for p in self.parameters()]
        self.register_buffer("offset", torch.zeros(()), persistent=False)

    def values(self, z: Tensor) -> Tensor:
        """Value of every member: z `[..., Z]` -> `[E, ...]`."""
        flat = self.input(z).reshape(-1, z.shape[-1])
        if self.ensemble == 1 and worth_it(flat, self._weights):
            return chain(flat, self._activation, self._weights).view(1, *z.shape[:-1]) + self.offset
        flat = flat.expand(self.ensemble, -1, -1)
        return at_least_float32(self.head(self.trunk(flat))).view(self.ensemble, *z.shape[:-1]) + self.offset

    def squared_error(self, z: Tensor, target: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The mean over `[N]` of every member's, summed, and its gradient with respect to each of `parameters()`."""
        if self.ensemble > 1 or under_autocast(z):
            loss = (self.values(z) - target).square().mean(1).sum()
            return loss.detach(), list(torch.autograd.grad(loss, list(self.parameters())))
        with torch.no_grad():
            values, gradients = run(self.input(z), self._activation, self._weights)
            error = values.view(1, -1) + self.offset - target
            slope = (2 * error).mul_(1 / len(z)).view(-1, 1)
            _, *found = gradients(slope, [False] + [True] * len(self._weights))
            ordered = [found[index] for index in self._order]
            return error.square().mean(1).sum(), [gradient for gradient in ordered if gradient is not None]

    def min(self, z: Tensor) -> Tensor:
        """The smallest member's value: z `[..., Z]` -> `[...]`."""
        return self.values(z).amin(0)
