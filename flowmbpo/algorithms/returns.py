"""Discounted returns of time-major rollouts, as pure functions. Not here: where rewards and values come from.

Both functions take `continues` `[T, B]`, the probability that the episode survives step t: exactly 1 - terminated for
real steps, a prediction for imagined ones. `ended` `[T, B]` marks real steps after which another episode begins,
terminated or truncated; a truncated step has `continues` 1, so what follows it is still worth its value.
`next_values` `[T, B]` are V(z_{t+1}) of the state that step t led to, before any reset.
"""

from __future__ import annotations

import torch
from torch import Tensor


def segment_returns(
    rewards: Tensor, continues: Tensor, next_values: Tensor, *, gamma: float, ended: Tensor | None = None
) -> Tensor:
    """What the actor maximises: for each column the sum over its segments of sum_k gamma^k r_k + gamma^n V(z_n).

    A segment ends where an episode ended, and at the last step (SHAC, arXiv 2204.07137, eq. 5). The weight of a step
    is the discount times the probability of having survived until then. `next_values` counts only where a segment
    ends; elsewhere it may hold anything finite. All inputs `[T, B]`; returns `[B]`, differentiable.
    """
    weight = torch.ones_like(rewards[0])
    weights, closing = [], []
    for t, goes_on in enumerate((continues * gamma).unbind(0)):
        weights.append(weight)
        weight = weight * goes_on
        closing.append(weight)
        if ended is not None:
            weight = torch.where(ended[t], 1.0, weight)
    closes = torch.zeros_like(rewards, dtype=torch.bool) if ended is None else ended.clone()
    closes[-1].fill_(True)  # an assigned number would be copied from the host
    ends = torch.where(closes, torch.stack(closing), 0.0)
    return (torch.stack(weights) * rewards).sum(0) + (ends * next_values).sum(0)


@torch.no_grad()
def td_lambda(
    rewards: Tensor,
    continues: Tensor,
    next_values: Tensor,
    *,
    gamma: float,
    td_lambda: float,
    ended: Tensor | None = None,
) -> Tensor:
    """TD(lambda) targets of V(z_t), all `[T, B]` (Sutton and Barto 2018, sec. 12.1).

    G_t = r_t + gamma c_t ((1 - lambda) V(z_{t+1}) + lambda G_{t+1}); at the last step and where an episode ended,
    G_t = r_t + gamma c_t V(z_{t+1}).
    """
    following = next_values[-1]
    targets = []
    ends = [None] * len(rewards) if ended is None else ended.unbind(0)
    steps = list(zip(rewards.unbind(0), continues.unbind(0), next_values.unbind(0), ends, strict=True))
    for reward, goes_on, value, end in reversed(steps):
        blend = torch.lerp(value, following, td_lambda)
        if end is not None:
            blend = torch.where(end, value, blend)
        following = torch.addcmul(reward, goes_on, blend, value=gamma)
        targets.append(following)
    return torch.stack(targets[::-1])
