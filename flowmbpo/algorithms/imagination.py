"""Rollouts of the policy inside the world model, differentiable from the returns back to the actions.

Not here: who trains on them. What comes out has the same form whether the rollout ran beside the real environment or
started from states that were visited before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from flowmbpo.algorithms.experience import Collector, Experience
from flowmbpo.algorithms.normalizers import Scale
from flowmbpo.models.actor import Actor
from flowmbpo.models.critic import Critic
from flowmbpo.models.world_model import WorldModel


@dataclass
class Transitions:
    """T steps of B rollouts in latent space, imagined or real; see `returns` for `continues` and `ended`.

    latents `[T, B, Z]` are the states acted on, next_latents `[T, B, Z]` those that follow them, before any reset.
    rewards, continues `[T, B]`, rewards in scaled units. ended `[T, B]` marks where a *real* episode ended.
    """

    latents: Tensor
    next_latents: Tensor
    rewards: Tensor
    continues: Tensor
    ended: Tensor | None = None


Step = tuple[Tensor, Tensor, Tensor, Tensor]
"""z, z_next `[B, Z]`, reward, continues `[B]`."""


def imagine(
    world_model: WorldModel,
    actor: Actor,
    z: Tensor,
    *,
    horizon: int,
    generator: torch.Generator,
    reacting: bool = True,
) -> Transitions:
    """`horizon` steps of the sampling policy from latents z `[B, Z]`, in a sampled future of each.

    When `reacting`, the gradient also runs through the policy's reaction to the states that its earlier actions led to
    (Dreamer, SHAC); otherwise it counts only what the actions do, as in `imagine_alongside`.
    """
    steps: list[Step] = []
    for _ in range(horizon):
        action = actor.sample(z if reacting else z.detach(), generator)
        z_next = world_model.sample(z, action, generator)
        steps.append((z, z_next, world_model.reward(z, action), world_model.continuation(z, action)))
        z = z_next
    return _stack(steps)


def imagine_alongside(
    world_model: WorldModel,
    actor: Actor,
    collector: Collector,
    encode: Callable[[Tensor], Tensor],
    generator: torch.Generator,
) -> Transitions:
    """The published form: model and reality step side by side with the same actions, for the collector's horizon.

    The actor sees the model's latent, detached, so that its gradient counts what the actions do and not how the policy
    will react. Where the real episode ends, the latent restarts from the encoding of the next one's observation.
    `continues` is the real one.
    """
    steps: list[Step] = []
    with torch.no_grad():
        z = encode(collector.obs)
    for t in range(collector.horizon):
        action = actor.sample(z.detach(), generator)
        z_next = world_model.sample(z, action, generator)
        ended = collector.step(t, action.detach())
        goes_on = 1.0 - collector.experience.terminated[t].float()
        steps.append((z, z_next, world_model.reward(z, action), goes_on))
        with torch.no_grad():
            restarted = encode(collector.obs)
        z = torch.where(ended.unsqueeze(-1), restarted, z_next)
    return _stack(steps, collector.experience.ended.clone())


def _stack(steps: list[Step], ended: Tensor | None = None) -> Transitions:
    latents, next_latents, rewards, continues = (torch.stack(parts) for parts in zip(*steps, strict=True))
    return Transitions(latents, next_latents, rewards, continues, ended)


def encoded(experience: Experience, encode: Callable[[Tensor], Tensor], scale: Scale) -> Transitions:
    """The real steps of an epoch in latent space, without gradients."""
    return Transitions(
        encode(experience.obs),
        encode(experience.next_obs),
        scale(experience.rewards),
        experience.continues,
        experience.ended,
    )


def values_at_segment_ends(critic: Critic, imagined: Transitions) -> Tensor:
    """V(z_{t+1}) `[T, B]` as `returns.segment_returns` needs it: where no real episode ran beside, only the last."""
    if imagined.ended is not None:
        return critic.min(imagined.next_latents)
    last = critic.min(imagined.next_latents[-1])
    return torch.cat((torch.zeros_like(imagined.rewards[:-1]), last.unsqueeze(0)))
