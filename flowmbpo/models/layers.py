"""Building blocks of every network: normed layers, SimNorm, initialisation, exact parameter counts.

Not a network by itself: encoder, dynamics, heads, actor and critic compose these.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flowmbpo.models.activations import Activation, find_activation, group_softmax


def at_least_float32(x: Tensor) -> Tensor:
    """`x` in float32 if it is a half type (the output of an autocast region), else unchanged."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


class SimNorm(nn.Module):
    """Softmax over each group of `group` consecutive features: a point on a product of simplices (TD-MPC2).

    The output is float32 even under autocast, because the integrators accumulate it.
    """

    def __init__(self, group: int) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        """`[..., Z]` -> `[..., Z]`."""
        return group_softmax(at_least_float32(x), self.group)

    def extra_repr(self) -> str:
        return f"group={self.group}"


class Standardize(nn.Module):
    """group z - 1: a latent on simplices whose features have mean 0 and, where a softmax spreads, deviation about 1.

    As SimNorm gives it, every feature is near 1 / group and varies little around that: a first layer then sees mostly a
    constant, and learns slowly from what is beside it.
    """

    def __init__(self, group: int) -> None:
        super().__init__()
        self.group = group

    def forward(self, z: Tensor) -> Tensor:
        """`[..., Z]` -> `[..., Z]`."""
        return self.group * z - 1

    def extra_repr(self) -> str:
        return f"group={self.group}"


def latent_input(standardize: int | None) -> nn.Module:
    """What a network does first with a latent: `Standardize` by groups of that many features, or nothing (None)."""
    return nn.Identity() if standardize is None else Standardize(standardize)


class NormedLinear(nn.Module):
    """Linear -> LayerNorm -> activation, on `x` or on the pair `[x, context]`.

    The pair has one weight per part instead of a concatenated input: the wide part keeps its aligned width (512, not
    521), nothing is copied, and a context that is broadcast over many `x` is multiplied once.
    """

    def __init__(
        self, in_features: int, out_features: int, activation: Activation, *, context_features: int = 0
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        self.context = nn.Linear(context_features, out_features, bias=False) if context_features else None
        self.norm = nn.LayerNorm(out_features)
        self.activation = activation

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """`x [..., in]`, `context [..., context]` -> `[..., out]`."""
        h = self.linear(x)
        if self.context is not None:
            assert context is not None
            h = h + self.context(context)
        return self.activation(self.norm(h))


class NormedMLP(nn.Module):
    """Normed layers of widths `units` on `[x, context]`; the trunk of dynamics, heads and decoder.

    `standardize`: see `latent_input`; of x only.
    """

    def __init__(
        self,
        in_features: int,
        units: Sequence[int],
        activation: str,
        *,
        context_features: int = 0,
        standardize: int | None = None,
    ) -> None:
        super().__init__()
        if not units:
            raise ValueError("a network needs at least one hidden layer; units is empty")
        function = find_activation(activation)
        self.input = latent_input(standardize)
        self.first = NormedLinear(in_features, units[0], function, context_features=context_features)
        self.rest = nn.Sequential(*(NormedLinear(a, b, function) for a, b in itertools.pairwise(units)))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """`x [..., in]`, `context [..., context]` -> `[..., units[-1]]`."""
        return self.rest(self.first(self.input(x), context))


def check_groups(latent_dim: int, simnorm_dim: int | None) -> None:
    """Raise ValueError unless the latent splits into whole SimNorm groups (None: the latent is no simplex)."""
    if simnorm_dim is not None and latent_dim % simnorm_dim:
        raise ValueError(
            f"latent_dim {latent_dim} does not split into groups of simnorm_dim {simnorm_dim}; "
            f"choose a multiple of {simnorm_dim}, for example {max(1, round(latent_dim / simnorm_dim)) * simnorm_dim}"
        )


def init_truncated_normal_(module: nn.Module, std: float = 0.02) -> None:
    """Weights of all linear layers from a truncated normal, biases zero (the world model's initialisation)."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def count_parameters(module: nn.Module) -> int:
    """Number of trained scalars in `module`."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
