"""The world model: encoder, dynamics and heads under four verbs, `encode`, `next`, `reward`, `loss`.

It hands out latents and scalars, never logits. Not here: optimisers, replay, scaling of rewards, imagined rollouts
under a policy.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flowmbpo.models.activations import find_activation
from flowmbpo.models.diagnostics import correlation
from flowmbpo.models.dynamics import Dynamics
from flowmbpo.models.heads import Continuation, Head
from flowmbpo.models.layers import NormedLinear, SimNorm, check_groups, init_truncated_normal_


class Encoder(nn.Sequential):
    """z = SimNorm(LayerNorm(Linear(normed layers on the observation))): `[..., O]` -> `[..., Z]`."""

    def __init__(
        self, *, obs_dim: int, units: Sequence[int], latent_dim: int, simnorm_dim: int, activation: str
    ) -> None:
        check_groups(latent_dim, simnorm_dim)
        widths = [obs_dim, *units]
        super().__init__(
            *(NormedLinear(a, b, find_activation(activation)) for a, b in itertools.pairwise(widths)),
            NormedLinear(widths[-1], latent_dim, SimNorm(simnorm_dim)),
        )
        self.simnorm_dim = simnorm_dim
        init_truncated_normal_(self)


class WorldModel(nn.Module):
    """Encoder, dynamics, reward head and (optional) continuation head, trained together.

    `encoder` is an `Encoder`, or `nn.Identity()` where the latent is the observation itself (normalised by the caller).
    """

    def __init__(
        self,
        *,
        encoder: nn.Module,
        dynamics: Dynamics,
        reward_head: Head,
        continuation_head: Continuation | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.simplex_group = encoder.simnorm_dim if isinstance(encoder, Encoder) else None
        """Features per simplex of the latent, None where it is no simplex."""
        self.dynamics = dynamics
        self.reward_head = reward_head
        self.continuation_head = continuation_head

    def encode(self, obs: Tensor) -> Tensor:
        """Latent of an observation: `[..., O]` -> `[..., Z]`."""
        return self.encoder(obs)

    def next(self, z: Tensor, action: Tensor) -> Tensor:
        """Latent after one control step: z `[..., Z]`, action `[..., A]` -> `[..., Z]`."""
        return self.dynamics.next(z, action)

    def reward(self, z: Tensor, action: Tensor) -> Tensor:
        """Predicted (scaled) reward of taking `action` in `z`: `[...]`."""
        return self.reward_head(z, action)

    def continuation(self, z: Tensor, action: Tensor) -> Tensor:
        """Probability that the episode does not terminate with this step: `[...]`, 1 without a continuation head."""
        if self.continuation_head is None:
            return z.new_ones(z.shape[:-1])
        return self.continuation_head(z, action)

    def unroll(self, z: Tensor, actions_TBA: Tensor) -> Tensor:
        """Open-loop latents z_1 ... z_T from z_0 `[B, Z]` under given actions: `[T, B, Z]`."""
        return torch.stack(self._states(z, actions_TBA)[1:])

    def _states(self, z: Tensor, actions_TBA: Tensor) -> list[Tensor]:
        states = [z]
        for action in actions_TBA.unbind(0):
            states.append(self.dynamics.next(states[-1], action))
        return states

    def loss(
        self,
        obs: Tensor,
        actions: Tensor,
        rewards: Tensor,
        *,
        discount: float,
        terminated: Tensor | None = None,
        target_encoder: nn.Module | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Autoregressive loss from e(o_0) over sub-sequences of one episode each.

        dynamics_loss = (1/T) sum_t discount^t l_t, reward_loss = (1/T) mean_t discount^t l^r_t, continuation_loss
        like the reward's, each the mean over the batch; l_t compares with stop-gradient encodings of o_{t+1}.

        obs: `[T + 1, B, O]`. actions: `[T, B, A]`. rewards: `[T, B]`, scaled by the caller.
        terminated: `[T, B]`, true where the transition ended the episode; needed iff there is a continuation head.
        target_encoder: gives the targets in place of the model's own encoder (a moving average, for instance).
        Returns the total and its detached parts, with `reward_correlation` (predicted with real) beside them.
        """
        with torch.no_grad():
            targets = (target_encoder or self.encoder)(obs[1:])
        states = self._states(self.encoder(obs[0]), actions)
        # Not slices of one tensor: the gradient of each would fill a tensor of that size and add it up.
        latents, following = torch.stack(states[:-1]), torch.stack(states[1:])

        steps = len(actions)
        weights = discount ** torch.arange(steps, device=obs.device, dtype=rewards.dtype)

        def discounted_sum(loss_TB: Tensor) -> Tensor:
            return (weights * loss_TB.mean(1)).sum()  # not a matrix product: autocast would round it

        step_loss = self.dynamics.loss(latents, actions, targets, z_next=following, generator=generator)
        parts = {"dynamics_loss": discounted_sum(step_loss) / steps}
        reward_loss, predicted = self.reward_head.loss(latents, actions, rewards)
        parts["reward_loss"] = discounted_sum(reward_loss) / steps**2
        if self.continuation_head is not None:
            if terminated is None:
                raise ValueError("this world model has a continuation head: loss needs `terminated` [T, B]")
            goes_on, _ = self.continuation_head.loss(latents, actions, 1.0 - terminated.to(rewards.dtype))
            parts["continuation_loss"] = discounted_sum(goes_on) / steps**2

        total = torch.stack(tuple(parts.values())).sum()
        detached = {name: value.detach() for name, value in parts.items()}
        detached["reward_correlation"] = correlation(predicted, rewards)
        return total, detached
