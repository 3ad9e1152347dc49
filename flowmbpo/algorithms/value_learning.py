"""Regression of the critic ensemble on TD(lambda) targets. Not here: where the transitions come from."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from flowmbpo.algorithms.imagination import Transitions
from flowmbpo.algorithms.optimization import GuardedAdam
from flowmbpo.algorithms.returns import td_lambda as td_lambda_targets
from flowmbpo.models.averaging import update_average_
from flowmbpo.models.critic import Critic


@torch.no_grad()
def value_targets(critic: Critic, seen: Transitions, *, gamma: float, td_lambda: float) -> Tensor:
    """TD(lambda) targets `[T, B]` of all states seen, from the ensemble's minimum."""
    return td_lambda_targets(
        seen.rewards,
        seen.continues,
        critic.min(seen.next_latents),
        gamma=gamma,
        td_lambda=td_lambda,
        ended=seen.ended,
    )


def fit_values(
    critic: Critic,
    target: Critic,
    target_decay: float,
    optimizer: GuardedAdam,
    latents: Tensor,
    targets: Tensor,
    *,
    passes: int,
    minibatches: int,
    generator: torch.Generator,
    precision: Callable[[], AbstractContextManager[object]],
) -> dict[str, Tensor]:
    """Mean squared error of every member, `passes` times over all latents `[T, B, Z]` in `minibatches` random parts.

    targets: `[T, B]`, computed once, before the first step. The ensemble `target`, where it is another one, follows
    `critic` after every pass. `precision` gives the context of the forward passes. Returns statistics by metric name.
    """
    latents, targets = latents.detach().flatten(0, 1), targets.flatten()
    size = -(-len(targets) // minibatches)
    losses, norms = [], []
    for _ in range(passes):
        order = torch.randperm(len(targets), generator=generator, device=targets.device)
        for states, values in zip(latents[order].split(size), targets[order].split(size), strict=True):
            with precision():
                loss = (critic.values(states) - values).square().mean(1).sum()
            norms.append(optimizer.step(loss))
            losses.append(loss.detach())
        if target is not critic:
            update_average_(target, critic, 1.0 - target_decay)
    return {
        "train/value_loss": torch.stack(losses).mean() / critic.ensemble,
        "train/value_mean": targets.mean(),
        "train/critic_gradient_norm": torch.stack(norms).mean(),
    }
