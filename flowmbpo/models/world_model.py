"""The world model: encoder, dynamics and heads under four verbs, `encode`, `next`, `reward`, `loss`.

It hands out latents and scalars, never logits. Not here: optimisers, replay, scaling of rewards, imagined rollouts
under a policy.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from flowmbpo.models.activations import find_activation
from flowmbpo.models.diagnostics import correlation
from flowmbpo.models.dynamics import Dynamics, squared_error
from flowmbpo.models.heads import Continuation, Head
from flowmbpo.models.layers import (
    NormedLinear,
    NormedMLP,
    SimNorm,
    at_least_float32,
    check_groups,
    init_truncated_normal_,
)

PullBack = Callable[[Tensor], tuple[Tensor, Tensor]]


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


class Decoder(nn.Module):
    """The (normalised) observation from a latent: `[..., Z]` -> `[..., O]`.

    Only its gradient is of use: it keeps in the latent, and in the latents that the dynamics predict, what an
    observation says.
    """

    def __init__(
        self, *, latent_dim: int, units: Sequence[int], obs_dim: int, activation: str, standardize: int | None = None
    ) -> None:
        super().__init__()
        self.trunk = NormedMLP(latent_dim, units, activation, standardize=standardize)
        self.last = nn.Linear(units[-1], obs_dim)
        init_truncated_normal_(self)

    def forward(self, z: Tensor) -> Tensor:
        """`[..., Z]` -> `[..., O]`, float32."""
        return at_least_float32(self.last(self.trunk(z)))


class WorldModel(nn.Module):
    """Encoder, dynamics, reward head and (optional) continuation head and decoder, trained together.

    `encoder` is an `Encoder`, or `nn.Identity()` where the latent is the observation itself (normalised by the caller).
    Without a reward head a subclass must know the reward.
    """

    reward_offset: Tensor

    def __init__(
        self,
        *,
        encoder: nn.Module,
        dynamics: Dynamics,
        reward_head: Head | None,
        continuation_head: Continuation | None = None,
        decoder: Decoder | None = None,
        teacher_forced: bool = False,
    ) -> None:
        """`teacher_forced`: the loss is taken at the encoding of every observation, not at the model's own predictions
        from the first one. A distribution learns so: of a state that it drew itself the real next one is no outcome."""
        super().__init__()
        self.teacher_forced = teacher_forced
        self.encoder = encoder
        self.simplex_group = encoder.simnorm_dim if isinstance(encoder, Encoder) else None
        """Features per simplex of the latent, None where it is no simplex."""
        self.dynamics = dynamics
        self.reward_head = reward_head
        self.continuation_head = continuation_head
        self.decoder = decoder
        # The reward that an untrained head predicts: its owner sets it, and knows it again after a restart.
        self.register_buffer("reward_offset", torch.zeros(()), persistent=False)

    def encode(self, obs: Tensor) -> Tensor:
        """Latent of an observation: `[..., O]` -> `[..., Z]`."""
        return self.encoder(obs)

    def next(self, z: Tensor, action: Tensor) -> Tensor:
        """Best guess of the latent after one control step: z `[..., Z]`, action `[..., A]` -> `[..., Z]`."""
        return self.dynamics.next(z, action)

    def sample(self, z: Tensor, action: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A draw of the latent after one control step, where the model is a distribution; else `next`."""
        return self.dynamics.sample(z, action, generator)

    def reward(self, z: Tensor, action: Tensor) -> Tensor:
        """Predicted (scaled) reward of taking `action` in `z`: `[...]`."""
        assert self.reward_head is not None
        return self.reward_head(z, action) + self.reward_offset

    def continuation(self, z: Tensor, action: Tensor) -> Tensor:
        """Probability that the episode does not terminate with this step: `[...]`, 1 without a continuation head."""
        if self.continuation_head is None:
            return z.new_ones(z.shape[:-1])
        return self.continuation_head(z, action)

    def step(
        self, z: Tensor, action: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`sample`, `reward` and `continuation` at once."""
        return self.sample(z, action, generator), self.reward(z, action), self.continuation(z, action)

    def linearized(self, z_TBZ: Tensor, actions_TBA: Tensor) -> list[PullBack]:
        """Of `next` at each step: a cotangent `[B, Z]` of what follows -> those of state and action, as new tensors."""
        raise TypeError(f"{type(self).__name__} is differentiated by imagining with it")

    def unroll(self, z: Tensor, actions_TBA: Tensor) -> Tensor:
        """Open-loop latents z_1 ... z_T from z_0 `[B, Z]` under given actions: `[T, B, Z]`."""
        return torch.stack(self._states(z, actions_TBA)[1:])

    def _states(self, z: Tensor, actions_TBA: Tensor) -> list[Tensor]:
        states = [z]
        for action in actions_TBA.unbind(0):
            states.append(self.next(states[-1], action))
        return states

    @property
    def _learns_from_last_state(self) -> bool:
        """Whether the loss looks at the state after a sequence's last action; if not, it is not computed."""
        return self.dynamics.learns_from_prediction or self.decoder is not None

    def evaluations_per_sequence(self, length: int) -> float:
        """Evaluations of the dynamics network in the loss of a sequence of `length` transitions."""
        dynamics = self.dynamics
        if self.teacher_forced:
            predicted = length * dynamics.learns_from_prediction
        else:
            predicted = length if self._learns_from_last_state else length - 1
        return predicted * dynamics.evaluations_per_step + length * dynamics.loss_evaluations

    def loss(
        self,
        obs: Tensor,
        actions: Tensor,
        rewards: Tensor,
        *,
        discount: float,
        reward_weight: float,
        decoder_weight: float,
        terminated: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss over sub-sequences of one episode each, autoregressive from e(o_0) unless `teacher_forced`.

        dynamics_loss = mean_t discount^t l_t, reward_loss = reward_weight mean_t discount^t l^r_t, continuation_loss
        like the reward's, decoder_loss = decoder_weight times the mean over the encoded and all predicted states, each
        the mean over the batch; l_t compares with stop-gradient encodings of o_{t+1}.

        obs: `[T + 1, B, O]`. actions: `[T, B, A]`. rewards: `[T, B]`, scaled by the caller.
        terminated: `[T, B]`, true where the transition ended the episode; needed iff there is a continuation head.
        Returns the total and its detached parts, with `reward_correlation` (predicted with real) beside them.
        """
        assert self.reward_head is not None
        with torch.no_grad():
            targets = self.encoder(obs[1:])
        steps = len(actions)
        following = None
        if self.teacher_forced:
            states = list(self.encoder(obs if self.decoder is not None else obs[:-1]).unbind(0))
        else:
            states = self._states(self.encoder(obs[0]), actions if self._learns_from_last_state else actions[:-1])
            if self.dynamics.learns_from_prediction:
                following = torch.stack(states[1:])
        # Not slices of one tensor: the gradient of each would fill a tensor of that size and add it up.
        latents = torch.stack(states[:steps])
        discounts = discount ** torch.arange(steps + 1, device=obs.device, dtype=rewards.dtype)

        def discounted_mean(loss_TB: Tensor) -> Tensor:
            length = len(loss_TB)
            return (discounts[:length] * loss_TB.mean(1)).sum() / length  # no matrix product: autocast would round it

        step_loss = self.dynamics.loss(latents, actions, targets, z_next=following, generator=generator)
        parts = {"dynamics_loss": discounted_mean(step_loss)}
        reward_loss, predicted = self.reward_head.loss(latents, actions, rewards - self.reward_offset)
        parts["reward_loss"] = reward_weight * discounted_mean(reward_loss)
        if self.continuation_head is not None:
            if terminated is None:
                raise ValueError("this world model has a continuation head: loss needs `terminated` [T, B]")
            goes_on, _ = self.continuation_head.loss(latents, actions, 1.0 - terminated.to(rewards.dtype))
            parts["continuation_loss"] = reward_weight * discounted_mean(goes_on)
        if self.decoder is not None:
            error = squared_error(self.decoder(torch.stack(states)), obs)
            parts["decoder_loss"] = decoder_weight * discounted_mean(error)

        total = torch.stack(tuple(parts.values())).sum()
        detached = {name: value.detach() for name, value in parts.items()}
        detached["reward_correlation"] = correlation(predicted, rewards)
        return total, detached
