"""How true a world model's gradients are: compared with those of the simulator, on states it was never trained on.

The h-step return of actions a_0 ... a_{h-1} from a state is sum_{k=1..h} gamma^(k-1) r(s_k, a_k): the rewards of the h
states that they lead to. Reads a model and changes nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flowmbpo.models.world_model import WorldModel

HORIZONS = (1, 2, 4, 8, 16)
STATES = 24
RANKED_STATES, SEQUENCES = 8, 8
SPREAD = 0.3
"""Deviation of the noise on the actions whose returns are ranked."""


def returns(model: WorldModel, z: Tensor, actions: Tensor, gamma: float) -> dict[int, Tensor]:
    """The return `[B]` for each of `HORIZONS`, from z `[B, Z]` under actions `[17, B, A]`."""
    states = []
    for action in actions[:-1].unbind(0):
        z = model.next(z, action)
        states.append(z)
    discounts = gamma ** torch.arange(len(states), device=z.device).unsqueeze(1)
    # One call of the reward for each horizon: the gradient of a short return then stays short.
    rewards = {h: model.reward(torch.stack(states[:h]), actions[1 : h + 1]) for h in HORIZONS}
    return {h: (discounts[:h] * reward).sum(0) for h, reward in rewards.items()}


def gradients(model: WorldModel, z: Tensor, actions: Tensor, gamma: float) -> dict[int, Tensor]:
    """The gradient `[B, h * A]` of each h-step return with respect to its h actions."""
    with torch.enable_grad():
        actions = actions.detach().requires_grad_()
        found = returns(model, z.detach(), actions, gamma)
        return {
            h: torch.autograd.grad(value.sum(), actions, retain_graph=True)[0][:h].transpose(0, 1).flatten(1)
            for h, value in found.items()
        }


def compare_gradients(own: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and relative length of gradients `[B, P]` against the true ones: `[B]` each."""
    tiny = torch.finfo(own.dtype).tiny
    own_length, true_length = own.norm(dim=1), true.norm(dim=1).clamp_min(tiny)
    return (own * true).sum(1) / (own_length.clamp_min(tiny) * true_length), own_length / true_length


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's correlation along the first dimension: `[K, S]`, `[K, S]` -> `[S]`."""
    ranks_a, ranks_b = (x.argsort(0).argsort(0).to(x.dtype) for x in (a, b))
    middle = (len(a) - 1) / 2
    return ((ranks_a - middle) * (ranks_b - middle)).sum(0) / (ranks_a - middle).square().sum(0)


def measure_truth(
    model: WorldModel,
    truth: WorldModel,
    starts: tuple[Tensor, Tensor],
    actions: Tensor,
    *,
    reward_scale: Tensor,
    gamma: float,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """`gradient_cosine_h` and `gradient_length_h` (medians, and quartiles) and `return_rank_h` (medians) over states.

    starts: the same states `[B, Z]` as latents of `model` and of `truth`, the latter's rewards being unscaled.
    actions: `[17, B, A]` taken from there, B at least `STATES`.
    """
    pair = [(m, z[:STATES]) for m, z in zip((model, truth), starts, strict=True)]
    own, true = (gradients(m, z, actions[:, :STATES], gamma) for m, z in pair)
    metrics = {}
    for h in HORIZONS:
        cosine, length = compare_gradients(own[h] * reward_scale, true[h])
        for name, values in (("cosine", cosine), ("length", length)):
            for suffix, share in (("", 0.5), ("_q25", 0.25), ("_q75", 0.75)):
                metrics[f"gradient_{name}_{h}{suffix}"] = values.nanquantile(share)
    shape = (len(actions), SEQUENCES, RANKED_STATES, actions.shape[-1])
    noise = SPREAD * torch.randn(shape, generator=generator, device=actions.device)
    varied = (actions[:, None, :RANKED_STATES] + noise).clamp(-1.0, 1.0).flatten(1, 2)
    with torch.no_grad():
        ranked = [returns(m, z[:RANKED_STATES].repeat(SEQUENCES, 1), varied, gamma) for m, z in pair]
    for h in HORIZONS:
        ours, real = (values[h].view(SEQUENCES, RANKED_STATES) for values in ranked)
        metrics[f"return_rank_{h}"] = rank_correlation(ours, real).nanmedian()
    return metrics
