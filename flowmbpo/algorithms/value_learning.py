"""Regression of the critic ensemble on TD(lambda) targets. Not here: where the transitions come from."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from flowmbpo.algorithms.imagination import Transitions
from flowmbpo.algorithms.optimization import GuardedAdam
from flowmbpo.algorithms.returns import td_lambda as td_lambda_targets
from flowmbpo.models.critic import Critic


def fit_values(
    critic: Critic,
    optimizer: GuardedAdam,
    seen: Transitions,
    *,
    gamma: float,
    td_lambda: float,
    passes: int,
    minibatches: int,
    generator: torch.Generator,
    precision: Callable[[], AbstractContextManager[object]],
) -> dict[str, Tensor]:
    """Mean squared error of every member, `passes` times over all states in `minibatches` random parts.

    The targets are computed once, from the ensemble's minimum, before the first step. `precision` gives the context of
    the forward passes. Returns statistics by metric name.
    """
    with torch.no_grad():
        next_values = critic.min(seen.next_latents)
        targets = td_lambda_targets(
            seen.rewards, seen.continues, next_values, gamma=gamma, td_lambda=td_lambda, ended=seen.ended
        ).flatten()
    latents = seen.latents.detach().flatten(0, 1)
    size = -(-len(targets) // minibatches)
    losses, norms = [], []
    for _ in range(passes):
        for chosen in torch.randperm(len(targets), generator=generator, device=targets.device).split(size):
            with precision():
                loss = (critic.values(latents[chosen]) - targets[chosen]).square().mean(1).sum()
            norms.append(optimizer.step(loss))
            losses.append(loss.detach())
    return {
        "train/value_loss": torch.stack(losses).mean() / critic.ensemble,
        "train/value_mean": targets.mean(),
        "train/critic_gradient_norm": torch.stack(norms).mean(),
    }
