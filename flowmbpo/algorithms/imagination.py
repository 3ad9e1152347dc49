"""Rollouts of the policy inside the world model, differentiable from the returns back to the actions.

Not here: who trains on them. What comes out has the same form whether the rollout ran beside the real environment or
started from states that were visited before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from flowmbpo.algorithms.experience import Collector, Experience
from flowmbpo.algorithms.normalizers import Scale
from flowmbpo.models.actor import Actor
from flowmbpo.models.critic import Critic
from flowmbpo.models.world_model import WorldModel

Sweep = Callable[[Tensor, Tensor], Tensor]
"""Gradients of the latents and of those that follow them -> that of the means before tanh."""


@dataclass
class Transitions:
    """T steps of B rollouts in latent space, imagined or real; see `returns` for `continues` and `ended`.

    latents `[T, B, Z]` are the states acted on, next_latents `[T, B, Z]` those that follow them, before any reset.
    rewards, continues `[T, B]`, rewards in scaled units. ended `[T, B]` marks where a *real* episode ended.
    exploration: how the actions came about, for who differentiates an imagined rollout.
    """

    latents: Tensor
    next_latents: Tensor
    rewards: Tensor
    continues: Tensor
    ended: Tensor | None = None
    exploration: Exploration | None = None


class Exploration:
    """What makes the actions of a rollout differ from the policy's mean: action_t = tanh(mu(z_t) + offsets_t).

    offsets `[T, B, A]` are sigma times standard normal noise, and zeros whose gradient is that with respect to mu(z_t).
    From it follows the gradient of the policy's weights, for all steps in one batch (`through_policy`): the rollout
    itself then needs none of them.
    """

    def __init__(self, actor: Actor, steps: int, z: Tensor, generator: torch.Generator) -> None:
        """For rollouts from z `[B, Z]`."""
        sigma = actor.std
        self.noise = torch.randn(steps, len(z), len(sigma), generator=generator, device=z.device)
        self._zeros = torch.zeros_like(self.noise, requires_grad=torch.is_grad_enabled())
        self.offsets = torch.addcmul(self._zeros, self.noise, sigma)

    def differentiated(self, sweep: Sweep, latents: Tensor, next_latents: Tensor) -> tuple[Tensor, Tensor]:
        """Both as given, with the gradient that `sweep` makes of theirs: that of the means before tanh `[T, B, A]`."""
        result: tuple[Tensor, Tensor] = _Swept.apply(self._zeros, latents, next_latents, sweep)
        return result

    def through_policy(self, loss: Tensor, actor: Actor, latents: Tensor, *, limit: float = 0.0) -> Tensor:
        """A scalar with the gradient of `loss` with respect to the actor's weights; latents `[T, B, Z]`.

        Not finite where the loss or its gradient is not.
        """
        return self.weighed(self.sensitivity(loss, limit=limit), actor, latents) + 0.0 * loss.detach()

    def sensitivity(self, loss: Tensor, *, limit: float = 0.0) -> Tensor:
        """The gradient of `loss` with respect to the mean of each action before tanh `[T, B, A]`.

        limit: `actor.rollout_grad_limit`.
        """
        gradient = torch.autograd.grad(loss, self._zeros)[0]
        return limited(gradient, limit) if limit else gradient

    def weighed(self, sensitivity: Tensor, actor: Actor, latents: Tensor, rollouts: slice = slice(None)) -> Tensor:
        """The scalar whose gradient with respect to the actor's weights is what `rollouts` of the batch add to it."""
        u = torch.addcmul(actor.mean_before_tanh(latents[:, rollouts].detach()), self.noise[:, rollouts], actor.std)
        return (u * sensitivity[:, rollouts]).sum()


def limited(gradient: Tensor, limit: float) -> Tensor:
    """Each rollout's gradient, scaled down to at most `limit` times the median length of those that are not zero.

    gradient: `[T, B, A]`. Through stiff contact single gradients are many times longer than the others and point
    anywhere; a limit on the norm of the sum leaves them their direction, this one takes them their weight.
    """
    lengths = gradient.square().sum((0, 2)).sqrt()
    typical = torch.where(lengths > 0, lengths, torch.nan).nanmedian()
    return gradient * (limit * typical / lengths).clamp(max=1.0).nan_to_num(1.0)[:, None]


class _Backward(FunctionCtx):
    sweep: Sweep


class _Swept(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _Backward, _means: Tensor, latents: Tensor, next_latents: Tensor, sweep: Sweep
    ) -> tuple[Tensor, Tensor]:
        ctx.sweep = sweep
        return latents.view_as(latents), next_latents.view_as(next_latents)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: _Backward, of_latents: Tensor, of_next: Tensor) -> tuple[Tensor, None, None, None]:
        with torch.autocast(of_latents.device.type, enabled=False):  # the rollout ran without, and knows its types
            return ctx.sweep(of_latents, of_next), None, None, None


Transition = tuple[Tensor, Tensor, Tensor, Tensor]
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
    steps: list[Transition] = []
    exploration = Exploration(actor, horizon, z, generator)
    for offset in exploration.offsets.unbind(0):
        action = (actor.mean_before_tanh(z if reacting else z.detach()) + offset).tanh()
        z_next, reward, continues = world_model.step(z, action, generator)
        steps.append((z, z_next, reward, continues))
        z = z_next
    latents, next_latents, rewards, continues = (torch.stack(parts) for parts in zip(*steps, strict=True))
    return Transitions(latents, next_latents, rewards, continues, exploration=exploration)


def imagine_alongside(
    world_model: WorldModel,
    actor: Actor,
    collector: Collector,
    encode: Callable[[Tensor], Tensor],
    generator: torch.Generator,
    *,
    reacting: bool = False,
) -> Transitions:
    """Model and reality step side by side with the same actions, for the collector's horizon.

    In the published form the actor sees the model's latent detached, so that its gradient counts what the actions do
    and not how the policy will react; `reacting` as of `imagine`. Where the real episode ends, the latent restarts from
    the encoding of the next one's observation. `continues` is the real one.
    """
    latents, next_latents, actions = [], [], []
    with torch.no_grad():
        z = encode(collector.obs)
    exploration = Exploration(actor, collector.horizon, z, generator)
    for t, offset in enumerate(exploration.offsets.unbind(0)):
        action = (actor.mean_before_tanh(z if reacting else z.detach()) + offset).tanh()
        z_next = world_model.sample(z, action, generator)
        ended = collector.step(t, action.detach())
        latents.append(z)
        next_latents.append(z_next)
        actions.append(action)
        with torch.no_grad():
            restarted = encode(collector.obs)
        z = torch.where(ended.unsqueeze(-1), restarted, z_next)
    stacked = torch.stack(latents)
    return Transitions(
        stacked,
        torch.stack(next_latents),
        world_model.reward(stacked, torch.stack(actions)),
        collector.experience.continues,
        collector.experience.ended.clone(),
        exploration,
    )


def follow_reality(
    world_model: WorldModel,
    actor: Actor,
    collector: Collector,
    encode: Callable[[Tensor], Tensor],
    generator: torch.Generator,
) -> Transitions:
    """The real rollout itself, for the collector's horizon: its values are real, its gradient is the world model's.

    The gradient is that of `imagine_alongside` with `reacting`, taken by one sweep back over the steps instead of a
    graph of them: the adjoint of the closed loop. No gradient crosses the end of an episode.
    """
    exploration = Exploration(actor, collector.horizon, collector.obs, generator)
    pull_backs = []
    for t, offset in enumerate(exploration.offsets.detach().unbind(0)):
        mean, pull_back = actor.linearized(encode(collector.obs))
        collector.step(t, mean.add_(offset).tanh_())
        pull_backs.append(pull_back)
    experience = collector.experience
    latents, actions = encode(experience.obs), experience.actions
    goes_on = (~experience.ended).unsqueeze(-1).float()
    model_pull_backs = world_model.linearized(latents, actions)

    def sweep(of_latents: Tensor, of_next: Tensor) -> Tensor:
        following, result = torch.zeros_like(latents[0]), []
        steps = (of_latents, of_next, goes_on, 1 - actions.square())
        rows = list(zip(*(x.unbind(0) for x in steps), pull_backs, model_pull_backs, strict=True))
        for of_state, of_arriving, linked, slope, policy_pull_back, model_pull_back in reversed(rows):
            through_model, of_action = model_pull_back(torch.addcmul(of_arriving, following, linked))
            result.append(of_action * slope)
            following = through_model.add_(of_state).add_(policy_pull_back(result[-1]))
        return torch.stack(result[::-1])

    latents, next_latents = exploration.differentiated(sweep, latents, encode(experience.next_obs))
    return Transitions(
        latents,
        next_latents,
        world_model.reward(latents, actions),
        experience.continues,
        experience.ended.clone(),
        exploration,
    )


def encoded(experience: Experience, encode: Callable[[Tensor], Tensor], scale: Scale) -> Transitions:
    """The real steps of an epoch in latent space, without gradients."""
    return Transitions(
        encode(experience.obs),
        encode(experience.next_obs),
        scale(experience.rewards),
        experience.continues,
        experience.ended,
    )


@torch.no_grad()
def predicted(world_model: WorldModel, experience: Experience, latents: Tensor, generator: torch.Generator) -> Tensor:
    """What the model makes of the epoch's real actions, open loop from its first states: `[T, B, Z]`.

    latents `[T, B, Z]`: the encodings. Where an episode ended, the next one starts from its encoding.
    """
    states = [latents[0]]
    for t, action in enumerate(experience.actions[:-1]):
        z = world_model.sample(states[-1], action, generator)
        states.append(torch.where(experience.ended[t].unsqueeze(-1), latents[t + 1], z))
    return torch.stack(states)


def values_at_segment_ends(critic: Critic, imagined: Transitions) -> Tensor:
    """V(z_{t+1}) `[T, B]` as `returns.segment_returns` needs it: where no real episode ran beside, only the last."""
    if imagined.ended is not None:
        return critic.min(imagined.next_latents)
    last = critic.min(imagined.next_latents[-1])
    return torch.cat((torch.zeros_like(imagined.rewards[:-1]), last.unsqueeze(0)))
