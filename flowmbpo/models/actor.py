"""The policy: a Gaussian on the latent, squashed by tanh. Not here: how it is trained."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowmbpo.models.activations import Activation, Saved, find_activation
from flowmbpo.models.chain import chain, run, worth_it
from flowmbpo.models.layers import at_least_float32, latent_input
from flowmbpo.models.reflection import Reflection


class ActivatedNorm(nn.Module):
    """Linear -> activation -> LayerNorm: the actor's block (the world model's normed layer activates last)."""

    def __init__(self, in_features: int, out_features: int, activation: Activation) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        self.activation = activation
        self.norm = nn.LayerNorm(out_features)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in]` -> `[..., out]`. Functions, not modules: calling those takes longer than a small product."""
        linear, norm = self.linear, self.norm
        h = self.activation(F.linear(x, linear.weight, linear.bias))
        return torch.layer_norm(h, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


class _Bounded(Saved):
    bound: float


class LowerBound(torch.autograd.Function):
    """max(x, bound) whose gradient still passes where a descent step would raise x back to the bound.

    A plain clamp has no gradient below the bound: a parameter that momentum carried there could never come back.
    """

    @staticmethod
    def forward(ctx: _Bounded, x: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bound = bound
        return x.clamp(min=bound)

    @staticmethod
    def backward(ctx: _Bounded, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return torch.where((x > ctx.bound) | (grad < 0), grad, torch.zeros_like(grad)), None


class Actor(nn.Module):
    """u ~ N(mu(z), sigma), action = tanh(u), with sigma independent of the state.

    With a `reflection` M, mu(z) = (f(z) + M f(M z)) / 2 of the network f: in the mirror the policy acts as its mirror
    image, mu(M z) = M mu(z), whatever the weights are (averaged over the group as in van der Pol et al.,
    arXiv 2006.16908). z must be what the reflection is about, an observation.
    """

    def __init__(
        self,
        *,
        latent_dim: int,
        action_dim: int,
        units: Sequence[int],
        activation: str,
        log_std_init: float,
        log_std_min: float,
        standardize: int | None = None,
        reflection: Reflection | None = None,
    ) -> None:
        super().__init__()
        self.input = latent_input(standardize)
        self.reflection = reflection
        widths = [latent_dim, *units]
        self._activation = find_activation(activation)
        self.trunk = nn.Sequential(*(ActivatedNorm(a, b, self._activation) for a, b in itertools.pairwise(widths)))
        self.mean = nn.Linear(widths[-1], action_dim)
        self._weights = [*self.trunk.parameters(), *self.mean.parameters()]
        self.log_std_parameter = nn.Parameter(torch.full((action_dim,), log_std_init))
        self.log_std_min = log_std_min
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.orthogonal_(layer.weight, gain=math.sqrt(2) if layer is not self.mean else 0.01)
                nn.init.zeros_(layer.bias)

    @property
    def log_std(self) -> Tensor:
        """log sigma of each action `[A]`, never below the floor."""
        return LowerBound.apply(self.log_std_parameter, self.log_std_min)

    def mean_before_tanh(self, z: Tensor) -> Tensor:
        """mu: z `[..., Z]` -> `[..., A]`."""
        if self.reflection is None:
            return self._of_network(z)
        straight, reflected = self._of_network(torch.stack((z, self.reflection.observation(z))))
        return (straight + self.reflection.action(reflected)) / 2

    def _of_network(self, z: Tensor) -> Tensor:
        if worth_it(z, self._weights):
            x = self.input(z)
            return chain(x.reshape(-1, x.shape[-1]), self._activation, self._weights).view(*x.shape[:-1], -1)
        return at_least_float32(self.mean(self.trunk(self.input(z))))

    @torch.no_grad()
    def linearized(self, z: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """mu `[B, A]` of z `[B, Z]`, a latent on no simplices, and how a gradient goes back from there to z."""
        assert isinstance(self.input, nn.Identity)
        reflection = self.reflection
        if reflection is not None:
            z = torch.cat((z, reflection.observation(z)))
        mean, gradients = run(z, self._activation, self._weights)
        needed = [True] + [False] * len(self._weights)

        def pull_back(gradient: Tensor) -> Tensor:
            (of_z, *_) = gradients(gradient, needed)
            assert of_z is not None
            return of_z

        if reflection is None:
            return mean, pull_back

        def pull_back_both(gradient: Tensor) -> Tensor:
            straight, reflected = pull_back(torch.cat((gradient, reflection.action(gradient))) / 2).chunk(2)
            return straight + reflection.observation(reflected)

        straight, reflected = mean.chunk(2)
        return (straight + reflection.action(reflected)) / 2, pull_back_both

    def mean_action(self, z: Tensor) -> Tensor:
        """The deterministic policy tanh(mu): z `[..., Z]` -> `[..., A]`."""
        return self.mean_before_tanh(z).tanh()

    @property
    def std(self) -> Tensor:
        """sigma of each action `[A]`."""
        return self.log_std.exp()

    def sample(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A reparametrised action: z `[..., Z]` -> `[..., A]` in (-1, 1)."""
        mean = self.mean_before_tanh(z)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        return torch.addcmul(mean, noise, self.std).tanh()

    def entropy_before_tanh(self) -> Tensor:
        """Entropy of the Gaussian, in nats: scalar."""
        return (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum()
