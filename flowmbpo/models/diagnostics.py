"""What a world model is worth: open-loop error, simplex distance, reward fit, gradient signal-to-noise ratio.

Pure functions on tensors, no I/O, no state; every result is a detached tensor on the input's device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from flowmbpo.models.scores import SAMPLES, coverage, energy_score

if TYPE_CHECKING:
    from flowmbpo.models.world_model import WorldModel

HORIZONS = (1, 4, 8, 16)


@torch.no_grad()
def open_loop_error(
    world_model: WorldModel, obs: Tensor, actions: Tensor, horizons: Sequence[int] = HORIZONS
) -> dict[str, Tensor]:
    """Latent error after h steps without looking, on held-out sequences.

    obs: `[T + 1, B, O]`. actions: `[T, B, A]`, with T at least the largest horizon.
    Returns for each h `latent_error_h`, the mean over batch and features of (z_h - e(o_h))^2 from z_0 = e(o_0), and
    `latent_error_h_relative`, the same divided by the error of a model that says "nothing changes": a latent that
    shrinks makes the first small but not the second.
    """
    if max(horizons) > len(actions):
        raise ValueError(f"horizon {max(horizons)} needs sequences of that many actions, these have {len(actions)}")
    length = max(horizons)
    truth = world_model.encode(obs[: length + 1])
    predicted = world_model.unroll(truth[0], actions[:length])
    error = (predicted - truth[1:]).square().mean((1, 2))
    unchanged = (truth[:1] - truth[1:]).square().mean((1, 2))
    result = {}
    for h in horizons:
        result[f"latent_error_{h}"] = error[h - 1]
        result[f"latent_error_{h}_relative"] = error[h - 1] / unchanged[h - 1].clamp_min(1e-12)
    return result


@torch.no_grad()
def distribution_scores(
    world_model: WorldModel, obs: Tensor, actions: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """How well samples of the model say what came, on held-out sequences: obs `[T + 1, B, O]`, actions `[T, B, A]`.

    Each sequence is sampled `SAMPLES` times, open loop from z_0 = e(o_0). `energy_score` and the coverages are of the
    first step; `energy_score_relative` and `energy_score_T_relative` are over the score of "nothing changes". The
    samples of a model without a distribution are all its one prediction.
    """
    truth = world_model.encode(obs)
    drawn = SAMPLES if world_model.dynamics.stochastic else 1
    z = truth[0].expand(drawn, *truth[0].shape)
    result = {}
    for t, action in enumerate(actions.unbind(0), start=1):
        z = world_model.sample(z, action.expand(drawn, *action.shape), generator)
        if t in (1, len(actions)):
            samples = z.expand(SAMPLES, *z.shape[1:])
            score = energy_score(samples, truth[t])
            unchanged = (truth[0] - truth[t]).norm(dim=-1).mean() / truth.shape[-1] ** 0.5
            result["energy_score_relative" if t == 1 else f"energy_score_{t}_relative"] = score / unchanged
            if t == 1:
                result |= {"energy_score": score, **coverage(samples, truth[t])}
    return result


@torch.no_grad()
def simplex_distance(z: Tensor, group: int) -> Tensor:
    """Euclidean distance of each latent from the product of simplices: `[..., Z]` -> `[...]`, 0 on it.

    The projection of each group is by sorting (Held, Wolfe and Crowder 1974).
    """
    groups = z.unflatten(-1, (-1, group))
    ordered = groups.sort(-1, descending=True).values
    excess = (ordered.cumsum(-1) - 1) / torch.arange(1, group + 1, device=z.device)
    active = (ordered > excess).sum(-1, keepdim=True)
    projection = (groups - excess.gather(-1, active - 1)).clamp_min(0)
    return (groups - projection).square().sum((-1, -2)).sqrt()


@torch.no_grad()
def correlation(predicted: Tensor, real: Tensor) -> Tensor:
    """Pearson correlation of two tensors of one shape, over all elements; 0 where one of them is constant."""
    p, r = (predicted - predicted.mean()).flatten(), (real - real.mean()).flatten()
    return ((p * r).sum() / (p.norm() * r.norm()).clamp_min(torch.finfo(p.dtype).tiny)).nan_to_num(0.0)


@torch.no_grad()
def reward_fit(predicted: Tensor, real: Tensor) -> dict[str, Tensor]:
    """`reward_correlation` and `reward_bias` (mean of predicted minus real) of predicted rewards, any one shape."""
    return {"reward_correlation": correlation(predicted, real), "reward_bias": (predicted - real).mean()}


@torch.no_grad()
def gradient_snr(gradients: Tensor) -> Tensor:
    """Expected signal-to-noise ratio of a gradient estimator, from independent estimates `[G, P]`, G at least 2.

    ESNR = sum_p E[g_p]^2 / sum_p Var[g_p] (Parmas, Seno and Aoki 2023; used for world-model gradients by PWM,
    arXiv 2407.02466). The squared mean of G estimates contains 1/G of their variance, which is taken off, so that
    pure noise gives about 0 for every G; the ratio belongs to one estimate, G of them averaged have G times as much.
    """
    if gradients.ndim != 2 or len(gradients) < 2:
        raise ValueError(f"needs gradients [G, P] of at least 2 groups, got shape {list(gradients.shape)}")
    noise = gradients.var(0).sum()
    signal = gradients.mean(0).square().sum() - noise / len(gradients)
    return signal.clamp_min(0) / noise.clamp_min(torch.finfo(gradients.dtype).tiny)
