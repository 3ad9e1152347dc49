"""Rollouts of the policy inside the world model, differentiable from the returns back to the actions.

Not here: who trains on them. What comes out has the same form whether the rollout ran beside the real environment or
started from states that were visited before.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowmbpo.models.actor import Actor
from flowmbpo.models.critic import Critic
from flowmbpo.models.world_model import WorldModel


@dataclass
class Imagined:
    """T imagined steps of B rollouts; see `returns` for `continues` and `ended`.

    latents `[T, B, Z]` are the states acted on, next_latents `[T, B, Z]` what the model says follows them.
    rewards, continues `[T, B]` carry gradients. ended `[T, B]` marks where the *real* episode beside it ended.
    """

    latents: Tensor
    next_latents: Tensor
    rewards: Tensor
    continues: Tensor
    ended: Tensor | None = None


class Recording:
    """Collects the steps of a rollout that is still going on."""

    def __init__(self) -> None:
        self._steps: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        self._ended: list[Tensor] = []

    def add(self, z: Tensor, z_next: Tensor, reward: Tensor, goes_on: Tensor, ended: Tensor | None = None) -> None:
        """One step: z, z_next `[B, Z]`, reward, goes_on `[B]`, ended `[B]`."""
        self._steps.append((z, z_next, reward, goes_on))
        if ended is not None:
            self._ended.append(ended)

    def finish(self) -> Imagined:
        """Everything collected, time first."""
        latents, next_latents, rewards, continues = (torch.stack(parts) for parts in zip(*self._steps, strict=True))
        return Imagined(latents, next_latents, rewards, continues, torch.stack(self._ended) if self._ended else None)


def imagine(world_model: WorldModel, actor: Actor, z: Tensor, *, horizon: int, generator: torch.Generator) -> Imagined:
    """`horizon` steps of the sampling policy from latents z `[B, Z]`.

    The gradient also runs through the policy's reaction to the states that its earlier actions led to (Dreamer, SHAC).
    """
    recording = Recording()
    for _ in range(horizon):
        action = actor.sample(z, generator)
        z_next = world_model.next(z, action)
        recording.add(z, z_next, world_model.reward(z, action), world_model.continuation(z, action))
        z = z_next
    return recording.finish()


def values_at_segment_ends(critic: Critic, imagined: Imagined) -> Tensor:
    """V(z_{t+1}) `[T, B]` as `returns.segment_returns` needs it: where no real episode ran beside, only the last."""
    if imagined.ended is not None:
        return critic.min(imagined.next_latents)
    last = critic.min(imagined.next_latents[-1])
    return torch.cat((torch.zeros_like(imagined.rewards[:-1]), last.unsqueeze(0)))
